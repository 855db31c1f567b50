-- Answer requests, unless they have been answered or nobody waits for them, and take them off the stream.
--
-- KEYS[3] stream, then two a request: payload, replies
-- ARGV: group, ms that a reply is kept, then three a request: id, id in the stream, reply; with '' it only ends
-- Answers a number a request: 1 if the reply was the first.

local stream, group, kept = KEYS[3], ARGV[1], ARGV[2]
local firsts, payloads, entries, replies = {}, {}, {}, {}
for n = 1, (#KEYS - 3) / 2 do
  local id, reply, list = ARGV[3 * n], ARGV[3 * n + 2], KEYS[2 * n + 3]
  payloads[n], entries[n] = KEYS[2 * n + 2], ARGV[3 * n + 1]
  firsts[n] = close(id) and 1 or 0
  if firsts[n] == 1 and reply ~= '' then
    replies[list] = replies[list] or {}
    table.insert(replies[list], reply)
  end
end
redis.call('DEL', unpack(payloads))
redis.call('XACK', stream, group, unpack(entries))
redis.call('XDEL', stream, unpack(entries))
-- A script that has written may write on in a Redis that is out of memory: a reply frees more than it takes.
for list, some in pairs(replies) do
  -- A key that somebody wrote over must not keep other askers from their replies.
  local pushed = redis.pcall('RPUSH', list, unpack(some))
  if type(pushed) == 'number' then redis.call('PEXPIRE', list, kept) end
end
return firsts
