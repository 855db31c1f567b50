-- The state of one job, changed in single steps. ARGV[1] names the operation.
-- KEYS: job hash, done bits, leases, trouble, queued.
--   leases: shard -> "token deadline ok errors mode"; mode: waits (for its turn), shared, alone, notice
--   trouble: shard -> JSON (contract.backend.trouble)   queued: shard scored by when it was queued, or may run again
-- Every operation may arrive twice. For a job that Redis has forgotten the answer is 'unknown': the bucket is the
-- truth, and the ledger is rebuilt from it by replaying 'commit'.
local job, done, leases, troubles, queued = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local op = ARGV[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

local function num(field) return tonumber(redis.call('HGET', job, field) or '0') end
local function stamp(t) return string.format('%.3f', t) end

local function parse(lease)
  local token, deadline, ok, errors, mode = string.match(lease, '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
  return token, tonumber(deadline), tonumber(ok), tonumber(errors), mode
end

-- The record of what went wrong with a shard.
local function trouble(shard) return cjson.decode(redis.call('HGET', troubles, shard) or '{}') end

local function keep(shard, record)
  if next(record) == nil then redis.call('HDEL', troubles, shard)
  else redis.call('HSET', troubles, shard, cjson.encode(record)) end
end

local function mark(record, field, key, value)
  record[field] = record[field] or {}
  record[field][key] = value
end

-- Whether Redis has started since the lease was last renewed: its worker could not speak meanwhile, to renew it or to
-- say that it leaves.
local function unheard(deadline, seconds)
  local uptime = string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)')
  return now - tonumber(uptime) - 2 > deadline - seconds -- both times are in whole seconds, and cached
end

-- A lease that lapsed is a death only if its shard was being computed and its worker could have said that it leaves.
local function bury(shard, lease, seconds)
  local token, deadline, _, _, mode = parse(lease)
  if (mode == 'shared' or mode == 'alone') and not unheard(deadline, seconds) then
    local record = trouble(shard)
    mark(record, 'dead', token, mode)
    keep(shard, record)
  end
end

-- Who speaks is not dead: it was cut off, or stopped for a while.
local function exhume(shard, token)
  local record = trouble(shard)
  if record.dead and record.dead[token] then
    record.dead[token] = nil
    if next(record.dead) == nil then record.dead = nil end
    keep(shard, record)
  end
end

local function stopped()
  local state = redis.call('HGET', job, 'state')
  return state == 'succeeded' or state == 'failed' or state == 'canceled' or num('over_budget') == 1
end

-- Marks shards as queued, at most `window` of them waiting or running; the caller sends the messages.
local function fill()
  local out = {}
  if stopped() then return out end
  local room = num('window') - redis.call('ZCARD', queued) - redis.call('HLEN', leases)
  local cursor, planned = num('cursor'), num('planned')
  while room > 0 and cursor < planned do
    if redis.call('GETBIT', done, cursor) == 0 then
      redis.call('ZADD', queued, stamp(now), cursor)
      table.insert(out, cursor)
      room = room - 1
    end
    cursor = cursor + 1
  end
  redis.call('HSET', job, 'cursor', cursor)
  return out
end

-- Moves the job to 'finalizing' once its error budget is exceeded or its last shard is done.
local function advance()
  -- A rebuild replays commits in any order: its counts mean nothing before it is opened.
  if stopped() or num('window') == 0 then return end
  if num('complete') == 1 then
    if num('errors') > num('error_limit') then
      redis.call('HSET', job, 'state', 'finalizing', 'over_budget', 1)
    elseif num('shards_done') >= num('shards_total') then
      redis.call('HSET', job, 'state', 'finalizing')
    end
  end
end

local function state() return redis.call('HGET', job, 'state') or 'unknown' end

-- Outcome of a step: the job's state, the shards whose messages the caller now sends, and the job's kind.
local function step(queue) return {state(), queue, redis.call('HGET', job, 'kind') or ''} end

if op == 'create' then -- run, field, value, ...; the entry of an earlier run gives way
  if redis.call('EXISTS', job) == 1 then
    if num('run') >= tonumber(ARGV[2]) then return {'exists'} end
    redis.call('DEL', job, done, leases, troubles, queued)
  end
  redis.call('HSET', job, 'run', ARGV[2], unpack(ARGV, 3))
  return {'created'}
end

if redis.call('EXISTS', job) == 0 then return {'unknown'} end

if op == 'planned' then -- shard, items
  local shard = tonumber(ARGV[2])
  if shard >= num('planned') then
    redis.call('HSET', job, 'planned', shard + 1)
    redis.call('HINCRBY', job, 'items', ARGV[3])
  end
  if state() == 'queued' then redis.call('HSET', job, 'state', 'planning') end
  return step(fill())

elseif op == 'complete' then -- shards, items, error limit, skipped
  if num('complete') == 0 then
    redis.call('HSET', job, 'complete', 1, 'planned', ARGV[2], 'shards_total', ARGV[2] + num('extra'),
      'items', ARGV[3], 'error_limit', ARGV[4], 'skipped', ARGV[5])
    if not stopped() then redis.call('HSET', job, 'state', 'running') end
  end
  advance()
  return step(fill())

elseif op == 'extend' then -- shards, items, error limit; all of the plan, which grew while the job was finalizing
  if state() ~= 'finalizing' or num('over_budget') == 1 or tonumber(ARGV[2]) <= num('planned') then return step({}) end
  redis.call('HSET', job, 'planned', ARGV[2], 'shards_total', ARGV[2] + num('extra'), 'items', ARGV[3],
    'error_limit', ARGV[4], 'state', 'running')
  return step(fill())

elseif op == 'open' then -- window; ends a rebuild, during which no message was sent
  local out = num('window') == 0 and redis.call('ZRANGE', queued, 0, -1) or {}
  for i, n in ipairs(out) do out[i] = tonumber(n) end
  redis.call('HSET', job, 'window', ARGV[2], 'kept', num('ok') + num('errors'), 'rate_t1', 0)
  advance()
  for _, n in ipairs(fill()) do table.insert(out, n) end
  return step(out)

elseif op == 'take' then -- shard, token, lease seconds
  local shard, token = ARGV[2], ARGV[3]
  if stopped() then redis.call('ZREM', queued, shard) return {'stopped'} end
  if redis.call('GETBIT', done, shard) == 1 then redis.call('ZREM', queued, shard) return {'done'} end
  local lease = redis.call('HGET', leases, shard)
  if lease then
    local holder, deadline = parse(lease)
    if holder ~= token and deadline > now then return {'leased'} end
    if holder ~= token then bury(shard, lease, tonumber(ARGV[4])) end
  end
  local record = trouble(shard)
  if (record.not_before or 0) > now then return {'later'} end
  redis.call('HSET', leases, shard, token .. ' ' .. stamp(now + tonumber(ARGV[4])) .. ' 0 0 waits')
  redis.call('ZREM', queued, shard)
  redis.call('HSETNX', job, 'started_at', stamp(now))
  redis.call('HDEL', job, 'unmet_since') -- a worker that can run the job is there
  return {'taken', redis.call('HGET', troubles, shard) or '', stamp(now)}

elseif op == 'mode' then -- shard, token, mode, whether to forget what went wrong so far
  local lease = redis.call('HGET', leases, ARGV[2])
  if not lease or parse(lease) ~= ARGV[3] then return {'lost'} end
  redis.call('HSET', leases, ARGV[2], string.match(lease, '^%S+ %S+ %S+ %S+') .. ' ' .. ARGV[4])
  if ARGV[5] == '1' then redis.call('HDEL', troubles, ARGV[2]) end
  return {'set'}

elseif op == 'renew' then -- shard, token, lease seconds, ok, errors, figures as JSON or '', mode
  if stopped() then return {'stopped'} end
  local lease = redis.call('HGET', leases, ARGV[2])
  if redis.call('GETBIT', done, ARGV[2]) == 1 then return {'lost'} end
  if not lease or parse(lease) ~= ARGV[3] then exhume(ARGV[2], ARGV[3]) end
  -- A lease that is missing after Redis was wiped, or that expired and nobody took, may be renewed.
  if lease and parse(lease) ~= ARGV[3] then return {'lost'} end
  redis.call('ZREM', queued, ARGV[2])
  redis.call('HSET', leases, ARGV[2],
    ARGV[3] .. ' ' .. stamp(now + tonumber(ARGV[4])) .. ' ' .. ARGV[5] .. ' ' .. ARGV[6] .. ' ' .. ARGV[8])
  if ARGV[7] ~= '' then redis.call('HSET', job, 'metrics', ARGV[7]) end
  return {'renewed'}

elseif op == 'commit' then -- shard, ok, errors, child or -1, child or -1
  local shard = ARGV[2]
  local fresh = redis.call('SETBIT', done, shard, 1) == 0
  redis.call('HDEL', leases, shard)
  redis.call('HDEL', troubles, shard)
  redis.call('ZREM', queued, shard)
  local out = {}
  if fresh then
    redis.call('HINCRBY', job, 'ok', ARGV[3])
    redis.call('HINCRBY', job, 'errors', ARGV[4])
    redis.call('HINCRBY', job, 'shards_done', 1)
    -- Two points in time, at least ten seconds apart, from which the current rate is computed.
    if now - num('rate_t1') > 10 then
      redis.call('HSET', job, 'rate_t0', num('rate_t1'), 'rate_d0', num('rate_d1'),
        'rate_t1', stamp(now), 'rate_d1', num('ok') + num('errors'))
    end
    for i = 5, 6 do
      if ARGV[i] ~= '-1' then
        redis.call('HINCRBY', job, 'shards_total', 1)
        redis.call('HINCRBY', job, 'extra', 1)
        if redis.call('GETBIT', done, ARGV[i]) == 0 then
          keep(ARGV[i], {half = true}) -- suspect: it runs alone, and one kill bisects it again
          redis.call('ZADD', queued, stamp(now), ARGV[i])
          -- In a rebuild its commit may come next; 'open' sends what is left.
          if num('window') > 0 then table.insert(out, tonumber(ARGV[i])) end
        end
      end
    end
  end
  advance()
  for _, n in ipairs(fill()) do table.insert(out, n) end
  return step(out)

elseif op == 'release' then -- shard, token, seconds before it may run again, '', 'wait' or 'fault', process, images
  local lease = redis.call('HGET', leases, ARGV[2])
  exhume(ARGV[2], ARGV[3])
  if not lease or parse(lease) ~= ARGV[3] then return {'lost'} end
  redis.call('HDEL', leases, ARGV[2])
  local record, due = trouble(ARGV[2]), now + tonumber(ARGV[4])
  if ARGV[5] == 'wait' then
    record.waits = (record.waits or 0) + 1
  elseif ARGV[5] == 'fault' then
    record.faults, record.waits = (record.faults or 0) + 1, nil
    record.since = record.since or now
    mark(record, 'processes', ARGV[6], 1)
    for image in string.gmatch(ARGV[7], '%d+') do
      record.images = record.images or {}
      mark(record.images, image, ARGV[6], 1)
    end
  end
  record.not_before = due > now and due or nil
  keep(ARGV[2], record)
  if not stopped() then redis.call('ZADD', queued, stamp(due), ARGV[2]) end
  return {'released'}

elseif op == 'lapsed' then -- lease seconds; frees the leases of dead workers; returns their shards, and those that waited long enough
  local out = {}
  if num('window') == 0 then return {'rebuilding', out, ''} end
  if stopped() then return step(out) end
  local all = redis.call('HGETALL', leases)
  for i = 1, #all, 2 do
    local _, deadline = parse(all[i + 1])
    if deadline <= now then
      bury(all[i], all[i + 1], tonumber(ARGV[2]))
      redis.call('HDEL', leases, all[i])
      redis.call('ZADD', queued, stamp(now), all[i])
      table.insert(out, tonumber(all[i]))
    end
  end
  all = redis.call('HKEYS', troubles)
  for i = 1, #all do
    local record = trouble(all[i])
    if record.not_before and record.not_before <= now then
      record.not_before = nil
      keep(all[i], record)
      if redis.call('ZSCORE', queued, all[i]) then
        redis.call('ZADD', queued, stamp(now), all[i])
        table.insert(out, tonumber(all[i]))
      end
    end
  end
  advance()
  for _, n in ipairs(fill()) do table.insert(out, n) end
  return step(out)

elseif op == 'requeue' then -- shards whose messages were lost
  local out = {}
  for i = 2, #ARGV do
    if redis.call('ZSCORE', queued, ARGV[i]) then
      redis.call('ZADD', queued, stamp(now), ARGV[i])
      table.insert(out, tonumber(ARGV[i]))
    end
  end
  return step(out)

elseif op == 'end' then -- state, reason, seconds to keep, run or -1; the end of an earlier run is not that of this one
  local run = tonumber(ARGV[5])
  if run >= 0 and num('run') > run then return {'stale'} end
  if run > num('run') then redis.call('HSET', job, 'run', run) end
  redis.call('HSET', job, 'state', ARGV[2], 'finished_at', stamp(now))
  if ARGV[3] ~= '' then redis.call('HSET', job, 'reason', ARGV[3]) end
  redis.call('DEL', queued, troubles, leases)
  redis.call('EXPIRE', job, ARGV[4])
  redis.call('EXPIRE', done, ARGV[4])
  return {ARGV[2]}
end

return redis.error_reply('no such operation: ' .. op)
