-- Adds measurements to the rates of models. KEYS[1]: hash, field -> "rate images seconds at"; images and seconds are sums
-- that halve every `half life` seconds, so that their quotient follows what was measured lately, whoever measured it.
-- `at` is told to the microsecond: a fast machine measures many in a millisecond, and the oldest has to make room.
-- ARGV: half life, largest number of fields, seconds to keep, then field, images, seconds, ...
local rates = KEYS[1]
local half_life, most, keep = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

local function parse(value)
  local rate, images, seconds, at = string.match(value, '^(%S+) (%S+) (%S+) (%S+)$')
  return tonumber(rate), tonumber(images), tonumber(seconds), tonumber(at)
end

local function drop_oldest()
  local all, oldest, since = redis.call('HGETALL', rates), nil, nil
  for i = 1, #all, 2 do
    local _, _, _, at = parse(all[i + 1])
    if not since or (at or 0) < since then oldest, since = all[i], at or 0 end
  end
  redis.call('HDEL', rates, oldest)
end

for i = 4, #ARGV, 3 do
  local field, images, seconds = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local before = redis.call('HGET', rates, field)
  local _, i0, s0, at = parse(before or '')
  if s0 then
    local left = 0.5 ^ (math.max(0, now - at) / half_life)
    images, seconds = images + i0 * left, seconds + s0 * left
  elseif not before and redis.call('HLEN', rates) >= most then
    drop_oldest()
  end
  redis.call('HSET', rates, field, string.format('%.6g %.6g %.6g %.6f', images / seconds, images, seconds, now))
end
redis.call('EXPIRE', rates, keep)
return 'added'
