-- SPDX-License-Identifier: Apache-2.0
--
-- policy - what stands between a recipient and the queue: suppression lists, rates and quotas. Asked
-- once for each RCPT (queue/policy.c); follows kilat.lua in the library. A tenant lives in one shard,
-- by the hash of its name (queue_tenant_shard).
--
--     s:<tenant>              hash: canonical address -> why it gets no mail
--     h:<tenant>:<address>    string, TTL: hard bounces of it so far, and the delivery of the last one;
--                             <address> is the SHA-1 of the canonical address, in hex
--     a:<tenant>:m, :d        string: recipients of the tenant in the last minute, the last day
--     a:<tenant>:m:<user>, :d:<user>     of one user; <user> is the SHA-1 of its name, in hex
--
-- Counts slide: the window is cut into slots, and a count is "<newest slot> <n> <n> ...", newest
-- first. What counts are the slots of the whole window and the one that it begins in, so never more
-- than the limit pass in any 60 seconds, or any 24 hours, wherever they begin; a recipient counts for
-- up to one slot (5 seconds, one hour) longer. Nobody's day begins at midnight. Only recipients that
-- pass are counted, so trying again while refused does not prolong anything.

-- The counts of each slot as of `newest`, their sum, and the newest slot: the clock may step back.
local function slide(value, newest, slots)
  local counts, total, numbers = {}, 0, {}
  for number in string.gmatch(value or newest, '%d+') do
    numbers[#numbers + 1] = tonumber(number)
  end
  newest = math.max(newest, numbers[1])
  local shift = newest - numbers[1]
  for slot = 1, slots + 1 do
    counts[slot] = slot > shift and numbers[1 + slot - shift] or 0
    total = total + counts[slot]
  end
  return counts, total, newest
end

-- A limit: its answer, its key, how many, slots of the window, ms of a slot.
local function limits_of(tag, tenant, user, args)
  local key = tag .. 'a:' .. tenant
  return {
    { 'rate', key .. ':m', tonumber(args[3]), 12, 5000 },
    { 'rate', key .. ':m:' .. user, tonumber(args[6]), 12, 5000 },
    { 'quota', key .. ':d', tonumber(args[4]), 24, 3600000 },
    { 'quota', key .. ':d:' .. user, tonumber(args[7]), 24, 3600000 },
  }
end

local function suppression(tag, tenant, rcpt)
  local reason = rcpt ~= '' and redis.call('HGET', tag .. 's:' .. tenant, rcpt)
  return reason and 'suppressed ' .. reason
end

-- kilat_suppressed(tenant, rcpt) -> "ok" | "suppressed <reason>"
local function suppressed(keys, args)
  return suppression(tag_of(keys), args[1], args[2]) or 'ok'
end

-- kilat_admit(tenant, rcpt, per_minute, per_day, user, user_per_minute, user_per_day)
--     -> "ok" | "suppressed <reason>" | "rate" | "quota"
-- Counts the recipient when all let it pass. rcpt '': the list is not looked at; a limit of 0: none.
local function admit(keys, args)
  local tag, now, passed = tag_of(keys), time_ms(), {}
  local refusal = suppression(tag, args[1], args[2])
  if refusal then
    return refusal
  end
  local limits = limits_of(tag, args[1], redis.sha1hex(args[5]), args)
  for i = 1, #limits do
    local word, key, limit, slots, slot_ms = unpack(limits[i])
    if limit > 0 then
      local counts, total, newest =
          slide(redis.call('GET', key), math.floor(now / slot_ms), slots)
      if total >= limit then
        return word
      end
      counts[1] = counts[1] + 1
      passed[#passed + 1] = { key, newest .. ' ' .. table.concat(counts, ' '),
        (slots + 1) * slot_ms }
    end
  end
  for i = 1, #passed do
    redis.call('SET', passed[i][1], passed[i][2], 'PX', passed[i][3])
  end
  return 'ok'
end

local HARD_BOUNCE_TTL = 30 * 86400000 -- ms that one counts

-- True when this hard bounce makes as many as it takes. One that is told again, because the reply to
-- the first telling was lost, counts once.
local function is_enough(key, limit, id)
  if limit == 1 then
    return true
  end
  local known, last = string.match(redis.call('GET', key) or '0 ', '^(%d+) (.*)$')
  local bounces = tonumber(known) + (last == id and 0 or 1)
  if bounces >= limit then
    redis.call('DEL', key)
    return true
  end
  redis.call('SET', key, bounces .. ' ' .. id, 'PX', HARD_BOUNCE_TTL)
  return false
end

-- kilat_hard_bounce(worker, n times: delivery id, "<tenant>\t<limit>\t<reason>\t<address>") -> {}
-- The address joins the tenant's list with its limit's bounce; one that is there keeps its reason.
local function hard_bounce(keys, args)
  local tag = tag_of(keys)
  for i = 2, #args, 2 do
    local tenant, limit, reason, address = string.match(args[i + 1], '^([^\t]*)\t(%d+)\t([^\t]*)\t(.*)$')
    local counter = tenant and tag .. 'h:' .. tenant .. ':' .. redis.sha1hex(address)
    if tenant and is_enough(counter, tonumber(limit), args[i]) then
      redis.call('HSETNX', tag .. 's:' .. tenant, address, reason)
    end
  end
  return {}
end

register('kilat_suppressed', suppressed, 'no-writes')
register('kilat_admit', admit, 'allow-oom')
register('kilat_hard_bounce', hard_bounce, 'allow-oom')
