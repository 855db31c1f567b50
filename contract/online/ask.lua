-- Admit a request, or say why not.
--
-- KEYS[3] stream   KEYS[4] workers   KEYS[5] payload
-- ARGV: id, payload, images, bytes, model, budget ms, most bytes, most requests, ms after which a worker is silent
-- Answers {'taken'}, {'none'} if no worker is ready, {'late' | 'full', ms until what waits now is done}.

local id, payload, images, bytes, model = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local budget, most_bytes, most, silent = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local now = now_ms()
-- The first write, because a Redis without memory refuses it; after a write that frees memory it would let others pass.
redis.call('HINCRBY', LOAD, 'bytes', 0)
forget(now)
-- It is asked again because the answer was lost.
if redis.call('ZSCORE', OPEN, id) then return {'taken'} end

local rate = 0
local said = redis.call('HVALS', KEYS[4])
for _, value in ipairs(said) do
  local at, per_second = value:match('^(%d+) ([%d.]+)')
  if at and now - tonumber(at) <= silent then rate = rate + tonumber(per_second) end
end
if rate <= 0 then return {'none'} end

local waiting = tonumber(redis.call('HGET', LOAD, 'images:' .. model) or 0)
local ms = math.ceil((waiting + images) / rate * 1000)
-- A fifth is left for what the rate does not know: the last batch, the network, a worker that dies.
if ms > 0.8 * budget and waiting > 0 then return {'late', math.ceil(ms - 0.8 * budget)} end
local held = tonumber(redis.call('HGET', LOAD, 'bytes') or 0)
if held + bytes > most_bytes or redis.call('ZCARD', OPEN) >= most then return {'full', ms} end

redis.call('SET', KEYS[5], payload, 'PX', budget)
redis.call('ZADD', OPEN, now + budget, id)
weigh(id, 1)
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 2 * most, '*', 'id', id)
return {'taken'}
