-- Chooses the job whose turn it is and leases its next shard to the worker that asks. Follows index.lua.
-- KEYS[4]: hash of measured rates (contract.fleet.rates). ARGV: queue, token, seconds of a lease, process, slots that one
-- owner may hold or 0, then what the worker can do: device, precisions, whether it may take what is long, whether it may
-- train; then whether it runs second copies; then GiB of its device or '', runtimes, and the id of its rule or ''.
-- The same token again gets the same shard, for the answer may have been lost.
local queue, token, lease, process, cap = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local can = {device = ARGV[6], precisions = ',' .. ARGV[7] .. ',', long = ARGV[8], trains = ARGV[9],
  memory = tonumber(ARGV[11]) or math.huge, runtimes = ',' .. ARGV[12] .. ',', rule = ARGV[13]}
local root, rates = index .. queue, KEYS[4]
local UNMEASURED = 20 -- seconds of a shard of a kind that nobody has measured: the most that a shard should take
local TRIED = 16 -- owners, and jobs of each, that are looked at until one has a shard for this process

local function meets(needs)
  local admitted = can.rule == ''
  for name, value in string.gmatch(needs, '(%w+)=(%S+)') do
    if name == 'device' then
      if value ~= can.device then return false end
    elseif name == 'precision' then
      if not string.find(can.precisions, ',' .. value .. ',', 1, true) then return false end
    elseif name == 'memory' then
      if tonumber(value) > can.memory then return false end
    elseif name == 'runtime' then
      if not string.find(can.runtimes, ',' .. value .. ',', 1, true) then return false end
    elseif name == 'rules' then
      admitted = admitted or string.find(',' .. value .. ',', ',' .. can.rule .. ',', 1, true)
    elseif can[name] ~= value then
      return false
    end
  end
  return admitted
end

local all, mine = redis.call('HKEYS', root .. ':ready'), {}
for _, needs in ipairs(all) do
  if meets(needs) then table.insert(mine, needs) end
end

-- The children of a parent that have something for this worker, in their order.
local function children(parent)
  local found, list, reached = {}, {}, clock(root, parent)
  for _, needs in ipairs(mine) do
    local tree = root .. '|' .. needs .. (parent == '' and '' or '|' .. parent)
    local scored = redis.call('ZRANGE', tree, 0, TRIED - 1, 'WITHSCORES')
    for i = 1, #scored, 2 do
      if not found[scored[i]] then
        found[scored[i]] = true
        table.insert(list, {name = scored[i], tag = math.max(tonumber(scored[i + 1]), reached)})
      end
    end
  end
  table.sort(list, function(a, b)
    if a.tag ~= b.tag then return a.tag < b.tag end
    local one, two = CLASSES[a.name] or 0, CLASSES[b.name] or 0
    if parent == '' and one ~= two then return one > two end
    return a.name < b.name
  end)
  return list
end

-- Start-time fair queueing (Goyal, Vin, Cheng: IEEE/ACM Transactions on Networking 5(5), 1997), at each level of the
-- tree: who is served has the smallest tag; the clock moves to that tag, and the tag by seconds over weight. A child
-- that nobody could serve for a while stands where the clock is, for service that is missed is no credit.
-- `trees` are the sets of needs of which the child may be in the tree; a job is in that of its own alone.
local function charge(trees, parent, child, seconds)
  local tags, start = root .. ':tags|' .. parent, tag(root, parent, child)
  local finish = tagged(start + seconds)
  move_clock(root, parent, start)
  redis.call('ZREMRANGEBYSCORE', tags, '-inf', tagged(start))
  redis.call('ZADD', tags, finish, child)
  redis.call('EXPIRE', tags, REMEMBERED)
  for _, needs in ipairs(trees) do
    redis.call('ZADD', root .. '|' .. needs .. (parent == '' and '' or '|' .. parent), 'XX', finish, child)
  end
end

-- Seconds that a shard of the job will take. Before one has ended that is a guess, which the first to end corrects.
local function estimate()
  if num('pace') > 0 then return of_shard(num('pace')) end
  local field = (get('kind') or '') .. '|' .. (get('model') or '') .. '|' .. can.device
  local rate = tonumber(string.match(redis.call('HGET', rates, field) or '', '^%S+') or '')
  local seconds = rate and of_shard(1 / rate) or UNMEASURED
  put('guesses', num('guesses') + 1)
  put('guessed', num('guessed') + seconds)
  return seconds
end

local function answer(shard, where)
  flush()
  return {id, shard, get('kind') or '', get('needs') or '', redis.call('HGET', troubles, shard) or '', stamp(now),
    where == copies and 1 or 0, num('run')}
end

local function hand_out(where, class, owner, shard)
  redis.call('HSET', where, shard, token .. ' ' .. stamp(now + lease) .. ' 0 0 waits ' .. stamp(now))
  put('unmet_since', nil) -- a worker that can run the job is there
  put('waiting_for', nil)
  local seconds, weight = estimate(), num('weight')
  charge({wanted()}, class .. '|' .. owner, id, seconds / (weight > 0 and weight or 1))
  charge(all, class, owner, seconds)
  charge(all, '', class, seconds / CLASSES[class])
  place()
  redis.call('SET', index .. 'granted:' .. token, id .. ' ' .. shard, 'EX', math.ceil(lease))
  return answer(shard, where)
end

local function grant(class, owner, shard)
  redis.call('ZREM', queued, shard)
  if tonumber(shard) == num('cursor') then put('cursor', shard + 1) end
  if not get('started_at') then put('started_at', stamp(now)) end
  put('waits_since', stamp(now))
  return hand_out(leases, class, owner, shard)
end

local function capped(owner) return cap > 0 and tonumber(redis.call('HGET', root .. ':slots', owner) or '0') >= cap end

-- Speculative execution (Dean, Ghemawat: MapReduce, OSDI 2004, section 3.6): a worker for which nothing else is left
-- gets a second copy of the shard that has run longest, unless it holds that itself. The commit decides which counts.
local function copy()
  local function worker(of) return string.match(of, '^(.*):') or of end
  for _, which in ipairs(redis.call('SMEMBERS', root .. ':tails')) do
    use(which)
    local found, owner = get('state') and stragglers() or {}, get('owner') or ''
    if #found == 0 then redis.call('SREM', root .. ':tails', which) end
    for _, one in ipairs(meets(wanted()) and not capped(owner) and found or {}) do
      if worker(one.token) ~= worker(token) then
        redis.call('HSET', troubles, one.shard, cjson.encode({copied = true})) -- until it is committed: not again
        put('copies', num('copies') + 1)
        return hand_out(copies, get('priority') or 'normal', owner, one.shard)
      end
    end
  end
  return {}
end

-- An entry that somebody deleted by hand.
local function vanish(class, owner)
  for _, needs in ipairs(mine) do
    redis.call('ZREM', root .. '|' .. needs .. '|' .. class .. '|' .. owner, id)
    climb(root, needs, class, owner)
  end
end

local before = redis.call('GET', index .. 'granted:' .. token)
if before then
  local which, shard = string.match(before, '^(%S+) (%S+)$')
  use(which)
  local where = lease_of(shard, token)
  if where then return answer(shard, where) end
end

for _, class in ipairs(children('')) do
  for _, owner in ipairs(children(class.name)) do
    if capped(owner.name) then
      park(root, owner.name, true)
    else
      for _, one in ipairs(children(class.name .. '|' .. owner.name)) do
        use(one.name)
        local there = get('state')
        local shard = there and not stopped() and pick(process)
        if shard then return grant(class.name, owner.name, shard) end
        if there then place() else vanish(class.name, owner.name) end
        flush()
      end
    end
  end
end
return ARGV[10] == '1' and copy() or {}
