-- The hints of one watch: KEYS[1] is a stream, whose entries hold one key `k` each, read by one group. KEYS[2] is a
-- stream of the names `w` of watches that were told something, which every controller reads.
--
--   tell    most, seconds, watch, key…        append keys, keep the newest `most`, forget all after so many seconds
--   take    consumer, milliseconds, count     entries that were never taken, or not settled for so long: id, key, …
--   settle  id…                               acknowledge and delete entries

local stream, told, group, step = KEYS[1], KEYS[2], 'watch', ARGV[1]

local function typed(key)
    local kind = redis.call('TYPE', key).ok
    if kind ~= 'stream' and kind ~= 'none' then
        redis.call('DEL', key) -- somebody else's; what was in it, a sweep finds
        return 'none'
    end
    return kind
end

local kind = typed(stream)

if step == 'tell' then
    for place = 5, #ARGV do
        redis.call('XADD', stream, 'MAXLEN', '~', ARGV[2], '*', 'k', ARGV[place])
    end
    redis.call('EXPIRE', stream, ARGV[3])
    typed(told)
    redis.call('XADD', told, 'MAXLEN', '~', 1000, '*', 'w', ARGV[4])
    redis.call('EXPIRE', told, ARGV[3])
    return {}
end

if kind == 'none' then
    return {}
end

if step == 'settle' then
    local ids = {unpack(ARGV, 2)}
    redis.pcall('XACK', stream, group, unpack(ids)) -- a group that is gone has nothing to acknowledge
    redis.call('XDEL', stream, unpack(ids))
    return {}
end

local made = redis.pcall('XGROUP', 'CREATE', stream, group, '0')
if made.err and not string.find(made.err, 'BUSYGROUP') then
    return {} -- no memory for a group
end

local found = {}
local function add(entries)
    for _, entry in ipairs(entries or {}) do
        -- An entry that was trimmed while it was taken has no fields.
        if type(entry) == 'table' and type(entry[2]) == 'table' and entry[2][1] == 'k' then
            table.insert(found, entry[1])
            table.insert(found, entry[2][2])
        end
    end
end

local consumer, idle, count = ARGV[2], ARGV[3], ARGV[4]
add(redis.call('XAUTOCLAIM', stream, group, consumer, idle, '0', 'COUNT', count)[2])
local fresh = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', stream, '>')
if fresh then
    add(fresh[1][2])
end
return found
