-- Renews all leases of one process, of any number of jobs, in one step.
-- KEYS: for each job its hash and its leases. ARGV[1]: lease seconds; then for each job: the number of its leases, figures
-- of the work as JSON or '', and for each lease: shard, token, ok, errors, mode.
-- The answers come in the order of the leases: 'renewed'; 'stopped' if the job is; 'ask' where the lease is not as its
-- holder believes, so that `renew` of ledger.lua must decide.
-- In the usual case each job costs three commands and each lease none.
local time = redis.call('TIME')
local deadline = string.format('%.3f', tonumber(time[1]) + tonumber(time[2]) / 1000000 + tonumber(ARGV[1]))
local out, at = {}, 2

for k = 1, #KEYS, 2 do
  local job, leases = KEYS[k], KEYS[k + 1]
  local count, figures = tonumber(ARGV[at]), ARGV[at + 1]
  local first = at + 2
  at = first + 5 * count

  local of_job = redis.call('HMGET', job, 'state', 'over_budget')
  local state = of_job[1]
  local stopped = state == 'succeeded' or state == 'failed' or state == 'canceled' or of_job[2] == '1'
  if not state or stopped then
    for _ = 1, count do table.insert(out, stopped and 'stopped' or 'ask') end
  else
    local shards = {}
    for i = first, at - 1, 5 do table.insert(shards, ARGV[i]) end
    local held = redis.call('HMGET', leases, unpack(shards))
    local renewed = {}
    for n, shard in ipairs(shards) do
      local i = first + 5 * (n - 1)
      -- What other fields a lease has stays as it is.
      local token, rest = string.match(held[n] or '', '^(%S+) %S+ %S+ %S+ %S+(.*)$')
      if token == ARGV[i + 1] then
        table.insert(renewed, shard)
        table.insert(renewed, table.concat({token, deadline, ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]}, ' ') .. rest)
        table.insert(out, 'renewed')
      else
        table.insert(out, 'ask')
      end
    end
    if #renewed > 0 then
      redis.call('HSET', leases, unpack(renewed))
      if figures ~= '' then redis.call('HSET', job, 'metrics', figures) end
    end
  end
end
return out
