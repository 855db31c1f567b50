-- Shares watches among controllers. KEYS: controllers by when they last came here, then a claim a watch.
-- ARGV: this controller, seconds that a claim holds. Returns the places of the watches that this controller keeps.
local who, seconds = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
redis.call('ZADD', KEYS[1], now, who)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - seconds)
redis.call('EXPIRE', KEYS[1], math.ceil(seconds))
local share = math.ceil((#KEYS - 1) / redis.call('ZCARD', KEYS[1]))
local kept, free = {}, {}
for n = 2, #KEYS do
  local holder = redis.call('GET', KEYS[n])
  if holder == who then
    if #kept < share then
      redis.call('PEXPIRE', KEYS[n], seconds * 1000)
      table.insert(kept, n - 2)
    else
      redis.call('DEL', KEYS[n])
    end
  elseif not holder then
    table.insert(free, n)
  end
end
for _, n in ipairs(free) do
  if #kept >= share then break end
  redis.call('SET', KEYS[n], who, 'PX', seconds * 1000)
  table.insert(kept, n - 2)
end
return kept
