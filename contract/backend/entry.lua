-- The entry of one job, which ledger.lua and dispatch.lua share with index.lua.
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
-- Every step that changes an entry ends with `place` (index.lua) and `flush`.
local entries, index, celery = KEYS[1], KEYS[2], KEYS[3]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

local SAMPLES = 21 -- shards of a job whose seconds are remembered, for their median
-- A straggler runs longer than twice the median of its job's finished shards. Spark's `spark.speculation.multiplier` is
-- 1.5 up to version 3 and 3 since. It runs for five seconds at least, the least that a shard should take: what is
-- shorter is over before a tick has seen it.
local LAG, SHORTEST = 2, 5
-- Seconds. No shard waits for so long (contract.backend.trouble), nor does a lease last so much longer than it should:
-- what does was written before the clock was set back.
local FAR = 120
local LOOK = 32 -- shards that came back, of which one may run in the process that asks

local id, job, done, leases, copies, troubles, queued

-- The fields of the hash that steps read. They are read together when the first is asked for, and `flush` writes what
-- a step has changed together: a command in a script costs as much as its work.
local FIELDS = {'run', 'kind', 'model', 'state', 'over_budget', 'complete', 'planned', 'extra', 'items', 'error_limit',
  'shards_total', 'shards_done', 'ok', 'errors', 'cursor', 'opened', 'started_at', 'queue', 'needs', 'priority',
  'owner', 'weight', 'max_slots', 'placed', 'ready', 'slots', 'pace', 'rate_t1', 'rate_d1', 'guesses', 'guessed',
  'unmet_since', 'waiting_for', 'speculative', 'copies', 'took', 'runtime', 'rules'}
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

-- What a worker must have to run the job: what its spec asks for, the runtime that turned out to be the only one, and
-- the rules of live workers that admit its models (contract.models.rules).
local function wanted()
  local all = get('needs') or ''
  for _, name in ipairs({'runtime', 'rules'}) do
    if (get(name) or '') ~= '' then all = all .. (all == '' and '' or ' ') .. name .. '=' .. get(name) end
  end
  return all
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

local function ended()
  local state = get('state')
  return state == 'succeeded' or state == 'failed' or state == 'canceled'
end

local function stopped() return ended() or num('over_budget') == 1 end

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
      local due = avoid[process] or 0
      if due <= now or due > now + FAR then return shard end
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

-- Seconds of a shard of average size, by the seconds of an item.
local function of_shard(pace)
  return math.max(0.001, pace * math.max(1, num('items') / math.max(1, num('planned'))))
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
