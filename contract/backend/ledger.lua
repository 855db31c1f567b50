-- The steps of one job, each whole. Follows index.lua. KEYS[4]: the job's id; ARGV[1] names the operation.
-- Every operation may arrive twice. For a job that Redis has forgotten the answer is 'unknown': the bucket is the
-- truth, and the ledger is rebuilt from it by replaying 'commit'.
use(KEYS[4])
local op = ARGV[1]

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

-- Moves the job to 'finalizing' once its error budget is exceeded or its last shard is done.
local function advance()
  -- A rebuild replays commits in any order: its counts mean nothing before it is opened.
  if stopped() or num('opened') == 0 then return end
  if num('complete') == 1 then
    if num('errors') > num('error_limit') then
      put('state', 'finalizing')
      put('over_budget', 1)
    elseif num('shards_done') >= num('shards_total') then
      put('state', 'finalizing')
    end
  end
end

local function state() return get('state') or 'unknown' end

-- Ends a step after which `more` shards may run that could not before: the job's state, its kind, and the number of
-- tickets that the caller now sends.
local function step(more)
  place()
  flush()
  return {state(), get('kind') or '', tickets(more)}
end

-- Ends all leases, and takes the entry out of the index, as far as it is not open.
local function clear()
  redis.call('DEL', leases, copies)
  put('copies', 0)
  if get('queue') then redis.call('SREM', index .. get('queue') .. ':tails', id) end
  place()
end

-- Takes the entry out of the index and deletes it.
local function forget()
  put('opened', 0)
  clear()
  redis.call('DEL', job, done, troubles, queued)
  use(id)
end

-- Charges the job, its owner and its class what its guessed shards took beyond the guess, or gives that back.
local function settle(seconds)
  local root, class, owner = index .. (get('queue') or ''), get('priority') or 'normal', get('owner') or ''
  local weight = num('weight') > 0 and num('weight') or 1
  correct(root, class .. '|' .. owner, id, seconds / weight)
  correct(root, class, owner, seconds)
  correct(root, '', class, seconds / CLASSES[class])
  put('guesses', nil)
  put('guessed', nil)
end

if op == 'create' then -- run, field, value, ...; the entry of an earlier run gives way
  if get('state') then
    -- One without a queue was made by an earlier version.
    if num('run') >= tonumber(ARGV[2]) and get('queue') then return {'exists'} end
    forget()
  end
  redis.call('HSET', job, 'run', ARGV[2], unpack(ARGV, 3))
  return {'created'}
end

if op == 'mode' then -- shard, token, mode, whether to forget what went wrong so far
  local where, lease = lease_of(ARGV[2], ARGV[3])
  if not where then return {'lost'} end
  local before, since = string.match(lease, '^(%S+ %S+ %S+ %S+) %S+(.*)$')
  redis.call('HSET', where, ARGV[2], before .. ' ' .. ARGV[4] .. since)
  if ARGV[5] == '1' then redis.call('HDEL', troubles, ARGV[2]) end
  return {'set'}
end

if not get('state') then return {'unknown'} end

if op == 'planned' then -- shard, items
  local shard, fresh = tonumber(ARGV[2]), 0
  if shard >= num('planned') then
    fresh = 1
    put('planned', shard + 1)
    put('items', num('items') + ARGV[3])
  end
  if state() == 'queued' then put('state', 'planning') end
  return step(fresh)

elseif op == 'complete' then -- shards, items, error limit, skipped
  local more = tonumber(ARGV[2]) - num('planned')
  if num('complete') == 0 then
    put('complete', 1)
    put('planned', ARGV[2])
    put('shards_total', ARGV[2] + num('extra'))
    put('items', ARGV[3])
    put('error_limit', ARGV[4])
    put('skipped', ARGV[5])
    if not stopped() then put('state', 'running') end
  end
  advance()
  return step(more)

elseif op == 'extend' then -- shards, items, error limit; all of the plan, which grew while the job was finalizing
  if state() ~= 'finalizing' or num('over_budget') == 1 or tonumber(ARGV[2]) <= num('planned') then return step(0) end
  local more = tonumber(ARGV[2]) - num('planned')
  put('planned', ARGV[2])
  put('shards_total', ARGV[2] + num('extra'))
  put('items', ARGV[3])
  put('error_limit', ARGV[4])
  put('state', 'running')
  return step(more)

elseif op == 'open' then -- ends a rebuild, during which no shard was handed out
  put('opened', 1)
  put('kept', num('ok') + num('errors'))
  put('rate_t1', 0)
  advance()
  return step(num('planned') + num('extra') - num('shards_done'))

elseif op == 'set' then -- field, value, ...: priority, weight, max_slots, needs, runtime, rules, ruled or waiting_for
  for i = 2, #ARGV, 2 do put(ARGV[i], ARGV[i + 1]) end
  return step(math.huge)

elseif op == 'unmet' then -- seconds since it was first found that no live worker can run the job; 0 the first time
  local since = num('unmet_since')
  if since == 0 then put('unmet_since', stamp(now)) end
  flush()
  return {since == 0 and '0' or stamp(math.max(0, now - since))}

elseif op == 'forget' then -- to be rebuilt from the bucket
  forget()
  return {'forgotten'}

elseif op == 'renew' then -- shard, token, lease seconds, ok, errors, figures as JSON or '', mode
  if stopped() then return {'stopped'} end
  if redis.call('GETBIT', done, ARGV[2]) == 1 then return {'done'} end
  local where, lease = lease_of(ARGV[2], ARGV[3])
  if not where then
    exhume(ARGV[2], ARGV[3])
    -- A lease that is missing after Redis was wiped, or that expired and nobody took, may be renewed.
    if redis.call('HEXISTS', leases, ARGV[2]) == 1 then return {'lost'} end
    where = leases
  end
  local since = lease and select(6, parse(lease)) or now
  redis.call('ZREM', queued, ARGV[2])
  redis.call('HSET', where, ARGV[2], table.concat({ARGV[3], stamp(now + tonumber(ARGV[4])), ARGV[5], ARGV[6], ARGV[8],
    stamp(since)}, ' '))
  if ARGV[7] ~= '' then put('metrics', ARGV[7]) end
  if not lease then place() end
  flush()
  return {'renewed'}

elseif op == 'commit' then -- shard, ok, errors, child or -1, child or -1, seconds of a slot or 0
  if ended() then return {state()} end -- its keys expire; one that is made now would not
  local shard = ARGV[2]
  local fresh = redis.call('SETBIT', done, shard, 1) == 0
  redis.call('HDEL', leases, shard)
  drop_copy(shard)
  redis.call('HDEL', troubles, shard)
  redis.call('ZREM', queued, shard)
  local more = 1 -- for the slot that is free now
  if fresh then
    put('ok', num('ok') + ARGV[3])
    put('errors', num('errors') + ARGV[4])
    put('shards_done', num('shards_done') + 1)
    -- Two points in time, at least ten seconds apart, from which the current rate is computed.
    if now - num('rate_t1') > 10 then
      put('rate_t0', stamp(num('rate_t1')))
      put('rate_d0', num('rate_d1'))
      put('rate_t1', stamp(now))
      put('rate_d1', num('ok') + num('errors'))
    end
    local images, seconds = tonumber(ARGV[3]) + tonumber(ARGV[4]), tonumber(ARGV[7])
    if images > 0 and seconds > 0 then
      local before, measured = num('pace'), seconds / images
      if before == 0 and num('guesses') > 0 then settle(num('guesses') * of_shard(measured) - num('guessed')) end
      put('pace', string.format('%.6g', before > 0 and 0.7 * before + 0.3 * measured or measured))
      local took = {string.format('%.6g', seconds)}
      for earlier in string.gmatch(get('took') or '', '%S+') do
        if #took < SAMPLES then table.insert(took, earlier) end
      end
      put('took', table.concat(took, ' '))
    end
    for i = 5, 6 do
      if ARGV[i] ~= '-1' then
        put('shards_total', num('shards_total') + 1)
        put('extra', num('extra') + 1)
        if redis.call('GETBIT', done, ARGV[i]) == 0 then
          keep(ARGV[i], {half = true}) -- suspect: it runs alone, and one kill bisects it again
          redis.call('ZADD', queued, stamp(now), ARGV[i])
          more = more + 1
        end
      end
    end
  end
  advance()
  return step(more)

elseif op == 'release' then -- shard, token, seconds until it may run again, '', 'wait', 'fault' or 'avoid', process, images
  local where = lease_of(ARGV[2], ARGV[3])
  exhume(ARGV[2], ARGV[3])
  if not where then return {'lost'} end
  local alone = where == leases and vacate(ARGV[2])
  if where == copies then drop_copy(ARGV[2]) end
  local record, due = trouble(ARGV[2]), now + tonumber(ARGV[4])
  if ARGV[5] == 'wait' and alone then
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
  if ARGV[5] == 'avoid' then mark(record, 'avoid', ARGV[6], due) end
  keep(ARGV[2], record)
  if not alone then return step(0) end -- the other copy goes on
  if not stopped() then redis.call('ZADD', queued, stamp(ARGV[5] == 'avoid' and now or due), ARGV[2]) end
  return step(due > now and ARGV[5] ~= 'avoid' and 0 or 1)

elseif op == 'lapsed' then -- lease seconds, whether to copy stragglers; frees the leases of dead workers; returns their
  -- shards too, what the job needs, and leases
  if num('opened') == 0 or not get('queue') then return {'rebuilding'} end
  local out = {}
  -- The death of a copy says nothing that the death of its shard's holder would not say too.
  local second = num('copies') > 0 and redis.call('HGETALL', copies) or {}
  for i = 1, #second, 2 do
    local _, deadline = parse(second[i + 1])
    if deadline <= now then drop_copy(second[i]) end
  end
  for _, shard in ipairs(redis.call('ZRANGEBYSCORE', queued, stamp(now + FAR), '+inf')) do
    redis.call('ZADD', queued, stamp(now), shard)
  end
  local all = stopped() and {} or redis.call('HGETALL', leases)
  for i = 1, #all, 2 do
    local token, deadline, ok, errors, mode, since = parse(all[i + 1])
    if deadline > now + ARGV[2] + FAR then
      redis.call('HSET', leases, all[i], table.concat({token, stamp(now + ARGV[2]), ok, errors, mode,
        stamp(math.min(since or now, now))}, ' '))
    elseif deadline <= now then
      bury(all[i], all[i + 1], tonumber(ARGV[2]))
      if vacate(all[i]) then
        redis.call('ZADD', queued, stamp(now), all[i])
        table.insert(out, tonumber(all[i]))
      end
    end
  end
  advance()
  local answer = step(#out)
  local slow = ARGV[3] == '1' and #stragglers() or 0
  if slow > 0 then redis.call('SADD', index .. get('queue') .. ':tails', id) end
  answer[3] = answer[3] + copy_tickets(slow)
  table.insert(answer, out)
  table.insert(answer, wanted())
  table.insert(answer, num('slots'))
  table.insert(answer, num('ready'))
  return answer

elseif op == 'end' then -- state, reason, seconds to keep, run or -1; the end of an earlier run is not that of this one
  local run = tonumber(ARGV[5])
  if run >= 0 and num('run') > run then return {'stale'} end
  if run > num('run') then put('run', run) end
  put('state', ARGV[2])
  put('finished_at', stamp(now))
  if ARGV[3] ~= '' then put('reason', ARGV[3]) end
  redis.call('DEL', queued, troubles)
  clear()
  flush()
  redis.call('EXPIRE', job, ARGV[4])
  redis.call('EXPIRE', done, ARGV[4])
  return {ARGV[2]}
end

return redis.error_reply('no such operation: ' .. op)
