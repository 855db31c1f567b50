-- Answer a request, unless it has been answered or nobody waits for it, and take it off the stream.
--
-- KEYS[3] stream   KEYS[4] payload   KEYS[5] replies
-- ARGV: id, id in the stream, group, reply, ms that a reply is kept; without a reply the request only ends
-- Answers 1 if the reply was the first.

local id, entry, group, reply, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local first = close(id)
redis.call('DEL', KEYS[4])
redis.call('XACK', KEYS[3], group, entry)
redis.call('XDEL', KEYS[3], entry)
-- A script that has written may write on in a Redis that is out of memory: a reply frees more than it takes.
if first and reply ~= '' then
  redis.call('RPUSH', KEYS[5], reply)
  redis.call('PEXPIRE', KEYS[5], kept)
end
return first and 1 or 0
