-- What ledger.lua and dispatch.lua share: the entry of one job, and the index of jobs that have a shard to hand out.
-- KEYS: prefix of the entries, prefix of the index, prefix of Celery's queues.
--
-- An entry, `job:ID` and below:
--   (hash)    state, plan, counts, whose it is; `cursor` is the first planned shard that was never handed out
--   :done     a bit for each committed shard
--   :leases   shard -> "token deadline ok errors mode since"; mode: waits (for its turn), shared, alone, notice
--   :copies   shard -> the same for a second copy of a leased shard; it takes the lease's place when that ends
--   :trouble  shard -> JSON (contract.backend.trouble)
--   :queued   shards that came back, and halves of those that were split, scored by when they may run
--
-- The index, `next:QUEUE` and below. One tree for each set of needs, so that a worker sees only what it can run:
--   |NEEDS               priority class, scored by its tag
--   |NEEDS|CLASS         owner
--   |NEEDS|CLASS|OWNER   job
--   :ready    needs -> shards that may run now        :slots   owner -> shards that are leased
--   :parked   owners that hold as many slots as they may
--   :tails    jobs that had stragglers at the last tick
--   :tags|PARENT and :clock|PARENT, where PARENT is nothing, CLASS or CLASS|OWNER: see `charge`
--
-- `place` brings the index into line with an entry; every step that changes an entry ends with it, and with `flush`.
local entries, index, celery = KEYS[1], KEYS[2], KEYS[3]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

-- A class gets twenty times what the one below it gets, as long as both want something.
local CLASSES = {high = 400, normal = 20, low = 1}
local UNMEASURED = 20 -- seconds of a shard of a kind that nobody has measured: the most that a shard should take
local REMEMBERED = 86400 -- seconds for which tags of those who want nothing are kept
local SAMPLES = 21 -- shards of a job whose seconds are remembered, for their median
-- A straggler runs longer than twice the median of its job's finished shards. Spark's `spark.speculation.multiplier` is
-- 1.5 up to version 3 and 3 since. It runs for five seconds at least, the least that a shard should take: what is
-- shorter is over before a tick has seen it.
local LAG, SHORTEST = 2, 5
local LOOK = 32 -- shards that came back, of which one may run in the process that asks

local id, job, done, leases, copies, troubles, queued

-- The fields of the hash that steps read. They are read together when the first is asked for, and `flush` writes what
-- a step has changed together: a command in a script costs as much as its work.
local FIELDS = {'run', 'kind', 'model', 'state', 'over_budget', 'complete', 'planned', 'extra', 'items', 'error_limit',
  'shards_total', 'shards_done', 'ok', 'errors', 'cursor', 'opened', 'started_at', 'queue', 'needs', 'priority',
  'owner', 'weight', 'max_slots', 'placed', 'ready', 'slots', 'pace', 'rate_t1', 'rate_d1', 'guesses', 'guessed',
  'unmet_since', 'waiting_for', 'speculative', 'copies', 'took'}
local fields, changed

local function use(which)
  id, job = which, entries .. which
  done, leases, copies = job .. ':done', job .. ':leases', job .. ':copies'
  troubles, queued = job .. ':trouble', job .. ':queued'
  fields, changed = nil, {}
end

local function get(name)
  if not fields then
    fields = {}
    for i, value in ipairs(redis.call('HMGET', job, unpack(FIELDS))) do fields[FIELDS[i]] = value end
  end
  return fields[name]
end

local function num(name) return tonumber(get(name) or '0') end

-- Sets a field; nil removes it.
local function put(name, value)
  value = value ~= nil and tostring(value) or false
  if (get(name) or false) ~= value then fields[name], changed[name] = value, true end
end

local function flush()
  local set, gone = {}, {}
  for name in pairs(changed) do
    if fields[name] then
      table.insert(set, name)
      table.insert(set, fields[name])
    else
      table.insert(gone, name)
    end
  end
  changed = {}
  if #set > 0 then redis.call('HSET', job, unpack(set)) end
  if #gone > 0 then redis.call('HDEL', job, unpack(gone)) end
end

local function stamp(t) return string.format('%.3f', t) end
local function tagged(t) return string.format('%.6f', t) end

local function parse(lease)
  local token, deadline, ok, errors, mode, since = string.match(lease, '^(%S+) (%S+) (%S+) (%S+) (%S+) ?(%S*)$')
  return token, tonumber(deadline), tonumber(ok), tonumber(errors), mode, tonumber(since)
end

-- Where the holder of `token` has its lease on a shard, and the lease; nil if it has none.
local function lease_of(shard, token)
  for _, where in ipairs({leases, copies}) do
    local lease = redis.call('HGET', where, shard)
    if lease and parse(lease) == token then return where, lease end
  end
end

local function drop_copy(shard)
  if num('copies') > 0 then put('copies', num('copies') - redis.call('HDEL', copies, shard)) end
end

-- Ends the lease on a shard. Returns whether nobody works on it now, for a copy takes the lease's place.
local function vacate(shard)
  local copy = num('copies') > 0 and redis.call('HGET', copies, shard)
  if copy then
    redis.call('HSET', leases, shard, copy)
    drop_copy(shard)
    return false
  end
  redis.call('HDEL', leases, shard)
  return true
end

-- The record of what went wrong with a shard.
local function trouble(shard) return cjson.decode(redis.call('HGET', troubles, shard) or '{}') end

local function stopped()
  local state = get('state')
  return state == 'succeeded' or state == 'failed' or state == 'canceled' or num('over_budget') == 1
end

-- The first shard from `from` on that is not committed.
local function uncommitted(from)
  if redis.call('GETBIT', done, from) == 0 then return from end
  local bytes = redis.call('STRLEN', done)
  while from < 8 * bytes and from % 8 > 0 do
    if redis.call('GETBIT', done, from) == 0 then return from end
    from = from + 1
  end
  if from >= 8 * bytes then return from end
  local found = redis.call('BITPOS', done, 0, from / 8)
  return found < 0 and 8 * bytes or found
end

-- The next shard that may run now, if need be in this process, or nil: those that came back go first.
local function pick(process)
  for _, shard in ipairs(redis.call('ZRANGEBYSCORE', queued, '-inf', stamp(now), 'LIMIT', 0, LOOK)) do
    if redis.call('HEXISTS', leases, shard) == 1 or redis.call('GETBIT', done, shard) == 1 then
      redis.call('ZREM', queued, shard)
    else
      local avoid = process and trouble(shard).avoid or {}
      if (avoid[process] or 0) <= now then return shard end
    end
  end
  local cursor, planned = num('cursor'), num('planned')
  local shard = uncommitted(cursor)
  -- Leased, or back in `queued`, before the cursor came by: an entry that was rebuilt begins at 0.
  while shard < planned and (redis.call('HEXISTS', leases, shard) == 1 or redis.call('ZSCORE', queued, shard)) do
    shard = uncommitted(shard + 1)
  end
  if shard > cursor then put('cursor', math.min(shard, planned)) end
  return shard < planned and tostring(shard) or nil
end

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

-- Seconds of a shard of average size, by the seconds of an item.
local function of_shard(pace)
  return math.max(0.001, pace * math.max(1, num('items') / math.max(1, num('planned'))))
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

-- Takes an owner out of all trees, or puts it back where it has jobs.
local function park(root, owner, parked)
  redis.call(parked and 'SADD' or 'SREM', root .. ':parked', owner)
  for _, needs in ipairs(redis.call('HKEYS', root .. ':ready')) do
    for class in pairs(CLASSES) do climb(root, needs, class, owner) end
  end
end

local function add(hash, field, by)
  if by ~= 0 and redis.call('HINCRBY', hash, field, by) <= 0 then redis.call('HDEL', hash, field) end
end

-- Brings the index into line with the entry.
local function place()
  local queue, needs, class = get('queue'), get('needs') or '', get('priority') or 'normal'
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
    add(root .. ':ready', needs, ready - before)
  else
    if before > 0 then add(root .. ':ready', was, -before) end
    if ready > 0 then add(root .. ':ready', needs, ready) end
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

-- Half of the job's last shards took no more seconds than this; nil before one is done.
local function median()
  local took = {}
  for seconds in string.gmatch(get('took') or '', '%S+') do table.insert(took, tonumber(seconds)) end
  table.sort(took)
  return took[math.ceil(#took / 2)]
end

-- The leased shards that another worker may run too, the one that has run longest first: only where nothing else of the
-- job is left to hand out, once for each shard, and none that anything has gone wrong with, for it may end its workers.
local function stragglers()
  local found, typical = {}, median()
  if not typical or get('speculative') ~= '1' or get('opened') ~= '1' or num('complete') == 0 or stopped() then
    return found
  end
  local full = num('max_slots') > 0 and num('slots') >= num('max_slots')
  if full or num('ready') > 0 or redis.call('ZCARD', queued) > 0 then return found end
  local before, all = now - math.max(SHORTEST, LAG * typical), redis.call('HGETALL', leases)
  for i = 1, #all, 2 do
    local token, _, _, _, mode, since = parse(all[i + 1])
    if since and since < before and mode ~= 'notice' and redis.call('HEXISTS', troubles, all[i]) == 0 then
      table.insert(found, {shard = all[i], token = token, since = since})
    end
  end
  table.sort(found, function(a, b) return a.since < b.since end)
  return found
end

-- Messages that the caller shall send, `most` of them, so that twice as many wait as there are slots.
local function tickets(most)
  local queue = get('queue')
  if not queue or most <= 0 then return 0 end
  local ready = 0
  for _, shards in ipairs(redis.call('HVALS', index .. queue .. ':ready')) do ready = ready + tonumber(shards) end
  local slots = tonumber(redis.call('HGET', index .. 'slots', queue) or '8')
  return math.max(0, math.min(most, math.min(2 * slots, ready) - redis.call('LLEN', celery .. queue)))
end

-- Messages that the caller shall send for so many stragglers, whose job is in nobody's tree.
local function copy_tickets(slow)
  if slow == 0 then return 0 end
  local slots = tonumber(redis.call('HGET', index .. 'slots', get('queue')) or '8')
  return math.max(0, math.min(slow, 2 * slots - redis.call('LLEN', celery .. get('queue'))))
end
