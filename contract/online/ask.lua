-- Admit requests, or say of each why not, in their order.
--
-- KEYS, three a request from the third: stream, workers, payload
-- ARGV: most bytes, most requests, ms after which a worker is silent, then six a request: id, payload, images, bytes,
-- model, budget ms
-- Answers an array a request: {'taken'}, {'none'} if no worker is ready, {'late' | 'full', ms until what waits now is
-- done}.

local most_bytes, most, silent = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_ms()
-- The first write, because a Redis without memory refuses it; after a write that frees memory it would let others pass.
redis.call('HINCRBY', LOAD, 'bytes', 0)
forget(now)

local rates = {}

-- Return the images per second of the workers that are ready.
local function rate_of(workers)
  if not rates[workers] then
    local rate = 0
    for _, value in ipairs(redis.call('HVALS', workers)) do
      local at, per_second = value:match('^(%d+) ([%d.]+)')
      if at and now - tonumber(at) <= silent then rate = rate + tonumber(per_second) end
    end
    rates[workers] = rate
  end
  return rates[workers]
end

local function admit(stream, workers, at, id, payload, images, bytes, model, budget)
  images, bytes, budget = tonumber(images), tonumber(bytes), tonumber(budget)
  -- It is asked again because the answer was lost.
  if redis.call('ZSCORE', OPEN, id) then return {'taken'} end

  local rate = rate_of(workers)
  if rate <= 0 then return {'none'} end

  local weighs = redis.call('HMGET', LOAD, 'bytes', 'images:' .. model)
  local held, waiting = tonumber(weighs[1] or 0), tonumber(weighs[2] or 0)
  local ms = math.ceil((waiting + images) / rate * 1000)
  -- A fifth is left for what the rate does not know: the last batch, the network, a worker that dies.
  if ms > 0.8 * budget and waiting > 0 then return {'late', math.ceil(ms - 0.8 * budget)} end
  if held + bytes > most_bytes or redis.call('ZCARD', OPEN) >= most then return {'full', ms} end

  redis.call('SET', at, payload, 'PX', budget)
  redis.call('ZADD', OPEN, now + budget, id)
  weigh(id, 1)
  redis.call('XADD', stream, 'MAXLEN', '~', 2 * most, '*', 'id', id)
  return {'taken'}
end

local answers = {}
for n = 1, (#KEYS - 2) / 3 do
  answers[n] = admit(KEYS[3 * n], KEYS[3 * n + 1], KEYS[3 * n + 2], unpack(ARGV, 6 * n - 2, 6 * n + 3))
end
return answers
