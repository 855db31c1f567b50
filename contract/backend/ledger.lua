-- The state of one job, changed in single steps. ARGV[1] names the operation.
-- KEYS: job hash, done bits, leases, attempts, queued.
--   leases: shard -> "token deadline ok errors"   queued: shard scored by when it was queued
-- Every operation may arrive twice. For a job that Redis has forgotten the answer is 'unknown': the bucket is the
-- truth, and the ledger is rebuilt from it by replaying 'commit'.
local job, done, leases, attempts, queued = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local op = ARGV[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

local function num(field) return tonumber(redis.call('HGET', job, field) or '0') end
local function stamp(t) return string.format('%.3f', t) end

local function parse(lease)
  local token, deadline, ok, errors = string.match(lease, '^(%S+) (%S+) (%S+) (%S+)$')
  return token, tonumber(deadline), tonumber(ok), tonumber(errors)
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
    redis.call('DEL', job, done, leases, attempts, queued)
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
  end
  redis.call('HSET', leases, shard, token .. ' ' .. stamp(now + tonumber(ARGV[4])) .. ' 0 0')
  redis.call('ZREM', queued, shard)
  redis.call('HSETNX', job, 'started_at', stamp(now))
  redis.call('HDEL', job, 'unmet_since') -- a worker that can run the job is there
  return {'taken', tonumber(redis.call('HGET', attempts, shard) or '0')}

elseif op == 'begin' then -- shard, token, number of this attempt
  local lease = redis.call('HGET', leases, ARGV[2])
  if not lease or parse(lease) ~= ARGV[3] then return {'lost'} end
  redis.call('HSET', attempts, ARGV[2], ARGV[4])
  return {'begun'}

elseif op == 'renew' then -- shard, token, lease seconds, ok, errors, figures as JSON or ''
  if stopped() then return {'stopped'} end
  local lease = redis.call('HGET', leases, ARGV[2])
  if redis.call('GETBIT', done, ARGV[2]) == 1 then return {'lost'} end
  -- A lease that is missing after Redis was wiped, or that expired and nobody took, may be renewed.
  if lease and parse(lease) ~= ARGV[3] then return {'lost'} end
  redis.call('ZREM', queued, ARGV[2])
  redis.call('HSET', leases, ARGV[2],
    ARGV[3] .. ' ' .. stamp(now + tonumber(ARGV[4])) .. ' ' .. ARGV[5] .. ' ' .. ARGV[6])
  if ARGV[7] ~= '' then redis.call('HSET', job, 'metrics', ARGV[7]) end
  return {'renewed'}

elseif op == 'commit' then -- shard, ok, errors, child or -1, child or -1
  local shard = ARGV[2]
  local fresh = redis.call('SETBIT', done, shard, 1) == 0
  redis.call('HDEL', leases, shard)
  redis.call('HDEL', attempts, shard)
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
          -- The half is suspect: after one more killed worker it is bisected again.
          redis.call('HSET', attempts, ARGV[i], num('max_attempts') - 1)
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

elseif op == 'release' then -- shard, token, attempts that now count against it
  local lease = redis.call('HGET', leases, ARGV[2])
  if lease and parse(lease) == ARGV[3] then
    redis.call('HDEL', leases, ARGV[2])
    redis.call('HSET', attempts, ARGV[2], ARGV[4])
    if not stopped() then redis.call('ZADD', queued, stamp(now), ARGV[2]) end
    return {'released'}
  end
  return {'lost'}

elseif op == 'lapsed' then -- frees the leases of dead workers; returns their shards, to be queued
  local out = {}
  if num('window') == 0 then return {'rebuilding', out, ''} end
  if stopped() then return step(out) end
  local all = redis.call('HGETALL', leases)
  for i = 1, #all, 2 do
    local _, deadline = parse(all[i + 1])
    if deadline <= now then
      redis.call('HDEL', leases, all[i])
      redis.call('ZADD', queued, stamp(now), all[i])
      table.insert(out, tonumber(all[i]))
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
  redis.call('DEL', queued, attempts, leases)
  redis.call('EXPIRE', job, ARGV[4])
  redis.call('EXPIRE', done, ARGV[4])
  return {ARGV[2]}
end

return redis.error_reply('no such operation: ' .. op)
