-- What the scripts of the online path begin with. A request is open from its admission until its reply, its withdrawal
-- or its deadline; only an open one can be answered, and only once.
--
-- KEYS[1] open requests: id by deadline, ms   KEYS[2] what they weigh: `bytes`, and `images:MODEL`

local OPEN, LOAD = KEYS[1], KEYS[2]

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function weigh(id, sign)
  local images, bytes, model = id:match('^%x+%-(%d+)%-(%d+)%-(.+)$')
  if images then
    redis.call('HINCRBY', LOAD, 'bytes', sign * tonumber(bytes))
    redis.call('HINCRBY', LOAD, 'images:' .. model, sign * tonumber(images))
  end
end

-- Return whether the request was open.
local function close(id)
  local was = redis.call('ZREM', OPEN, id) == 1
  if was then weigh(id, -1) end
  return was
end

-- Close what nobody waits for any more, a few at a time; nothing is open: nothing weighs.
local function forget(now)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', OPEN, '-inf', now, 'LIMIT', 0, 100)) do close(id) end
  if redis.call('EXISTS', OPEN) == 0 then redis.call('DEL', LOAD) end
end
