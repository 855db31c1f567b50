-- The index of jobs that have a shard to hand out: `next:QUEUE` and below. Follows entry.lua, for ledger.lua and
-- dispatch.lua. One tree for each set of needs, so that a worker sees only what it can run:
--   |NEEDS               priority class, scored by its tag
--   |NEEDS|CLASS         owner
--   |NEEDS|CLASS|OWNER   job
--   :ready    needs -> shards that may run now        :slots   owner -> shards that are leased
--   :tails    jobs that had stragglers at the last tick
--   :parked   owners that hold as many slots as they may; they are in no tree
--   :of|OWNER needs -> ready shards of one owner      :held    needs -> ready shards of all parked owners
--   :tags|PARENT and :clock|PARENT, where PARENT is nothing, CLASS or CLASS|OWNER: see `charge`
--
-- `place` brings the index into line with an entry.

-- A class gets twenty times what the one below it gets, as long as both want something.
local CLASSES = {high = 400, normal = 20, low = 1}
local REMEMBERED = 86400 -- seconds for which tags of those who want nothing are kept

-- How far the children of a parent have been served.
local clocks = {}
local function clock(root, parent)
  local key = root .. ':clock|' .. parent
  clocks[key] = clocks[key] or tonumber(redis.call('GET', key) or '0')
  return clocks[key]
end

local function move_clock(root, parent, at)
  local key = root .. ':clock|' .. parent
  clocks[key] = at
  redis.call('SET', key, tagged(at), 'EX', REMEMBERED)
end

-- Where a child stands: a newcomer begins at the clock, with neither credit nor debt.
local function tag(root, parent, child)
  local own = tonumber(redis.call('ZSCORE', root .. ':tags|' .. parent, child) or '0')
  return math.max(own, clock(root, parent))
end

-- Moves a child by the seconds, over its weight, by which a guess was wrong; never behind the clock.
local function correct(root, parent, child, by)
  local own = tonumber(redis.call('ZSCORE', root .. ':tags|' .. parent, child) or '0')
  if own <= clock(root, parent) then return end
  local at = tagged(math.max(own + by, clock(root, parent)))
  redis.call('ZADD', root .. ':tags|' .. parent, at, child)
  for _, needs in ipairs(redis.call('HKEYS', root .. ':ready')) do
    redis.call('ZADD', root .. '|' .. needs .. (parent == '' and '' or '|' .. parent), 'XX', at, child)
  end
end

-- Brings the ancestors of an owner's jobs into line with them.
local function climb(root, needs, class, owner)
  local classes = root .. '|' .. needs
  local owners = classes .. '|' .. class
  if redis.call('EXISTS', owners .. '|' .. owner) == 1 and redis.call('SISMEMBER', root .. ':parked', owner) == 0 then
    redis.call('ZADD', owners, tagged(tag(root, class, owner)), owner)
  else
    redis.call('ZREM', owners, owner)
  end
  if redis.call('EXISTS', owners) == 1 then
    redis.call('ZADD', classes, tagged(tag(root, '', class)), class)
  else
    redis.call('ZREM', classes, class)
  end
end

local function add(hash, field, by)
  if by ~= 0 and redis.call('HINCRBY', hash, field, by) <= 0 then redis.call('HDEL', hash, field) end
end

-- Takes an owner out of all trees, or puts it back where it has jobs. What waits there is ready for nobody meanwhile.
local function park(root, owner, parked)
  if redis.call(parked and 'SADD' or 'SREM', root .. ':parked', owner) == 1 then
    local shards = redis.call('HGETALL', root .. ':of|' .. owner)
    for i = 1, #shards, 2 do add(root .. ':held', shards[i], parked and shards[i + 1] or -shards[i + 1]) end
  end
  for _, needs in ipairs(redis.call('HKEYS', root .. ':ready')) do
    for class in pairs(CLASSES) do climb(root, needs, class, owner) end
  end
end

-- Counts shards that became ready, or are so no more.
local function count(root, owner, needs, by)
  if by == 0 then return end
  add(root .. ':ready', needs, by)
  add(root .. ':of|' .. owner, needs, by)
  if redis.call('SISMEMBER', root .. ':parked', owner) == 1 then add(root .. ':held', needs, by) end
end

-- Brings the index into line with the entry.
local function place()
  local queue, needs, class = get('queue'), wanted(), get('priority') or 'normal'
  local owner, placed, before, slots = get('owner') or '', get('placed') or '', num('ready'), num('slots')
  if not queue then return end -- of an earlier version, until it is rebuilt
  local root, running, ready = index .. queue, redis.call('HLEN', leases), 0
  local held = running + num('copies')
  if get('opened') == '1' and not stopped() then
    local room = num('max_slots') > 0 and num('max_slots') - held or math.huge
    if room > 0 and pick() then
      ready = math.min(room, math.max(1, num('planned') + num('extra') - num('shards_done') - running))
    end
  end
  local where = ready > 0 and needs .. '|' .. class .. '|' .. owner or ''
  if (placed ~= where or before ~= ready or slots ~= held) and before == 0 then put('waits_since', stamp(now)) end
  put('placed', where)
  put('ready', ready)
  put('slots', held)
  local was = string.match(placed, '^[^|]*')
  if placed == where then
    count(root, owner, needs, ready - before)
  else
    count(root, owner, was, -before)
    count(root, owner, needs, ready)
  end
  if placed ~= where and placed ~= '' then
    redis.call('ZREM', root .. '|' .. placed, id)
    climb(root, string.match(placed, '^([^|]*)|([^|]*)|(.*)$'))
  end
  if where ~= '' and not redis.call('ZSCORE', root .. '|' .. where, id) then
    redis.call('ZADD', root .. '|' .. where, tagged(tag(root, class .. '|' .. owner, id)), id)
    climb(root, needs, class, owner)
  end
  add(root .. ':slots', owner, held - slots)
  if held < slots and redis.call('SISMEMBER', root .. ':parked', owner) == 1 then park(root, owner, false) end
end

-- Messages that the caller shall send, `most` of them, so that twice as many wait as there are slots.
local function tickets(most)
  local queue = get('queue')
  if not queue or most <= 0 then return 0 end
  local ready = 0
  for _, shards in ipairs(redis.call('HVALS', index .. queue .. ':ready')) do ready = ready + tonumber(shards) end
  for _, shards in ipairs(redis.call('HVALS', index .. queue .. ':held')) do ready = ready - tonumber(shards) end
  local slots = tonumber(redis.call('HGET', index .. 'slots', queue) or '8')
  return math.max(0, math.min(most, math.min(2 * slots, ready) - redis.call('LLEN', celery .. queue)))
end

-- Messages that the caller shall send for so many stragglers, whose job is in nobody's tree.
local function copy_tickets(slow)
  if slow == 0 then return 0 end
  local slots = tonumber(redis.call('HGET', index .. 'slots', get('queue')) or '8')
  return math.max(0, math.min(slow, 2 * slots - redis.call('LLEN', celery .. get('queue'))))
end
