#!lua name=kilat
-- SPDX-License-Identifier: Apache-2.0
--
-- kilat - the queue's moves, each one atomic. Keys and the text of an item: queue/schema.h.
--
-- A delivery is in exactly one place: leased (w:<worker>), ready or held (r:<lane>:<dest>, with a
-- tenant r:<lane>:<dest> SP <tenant>; held when its destination's score in d:<lane> is +inf),
-- scheduled (t, ti) or dead (x, xr). Every function moves deliveries between these, or ends them; a
-- record b:<id> goes with its last one.
--
-- Tenants with mail ready for one destination take turns: v:<lane>:<dest> has for each how far it
-- has come, deliveries by weight (tw), and the one that is furthest behind is next. Who comes new
-- begins where that one is. Every list that is not empty is in it.
--
-- KEYS[1] is always the shard's counters, such as {q3}n; all other keys share its hash tag. Time is
-- Redis' own (TIME), in ms, so gateways need no common clock. Scores in d keep fractions of a ms:
-- destinations that are served twice in the same ms still take turns.
--
-- Who moves or frees is registered with allow-oom: a full Redis must be able to drain. Only
-- kilat_enq is not, so that a full Redis refuses a whole transaction before it touches anything.
--
-- One library in nine files, put together in this order (queue/meson.build): this one, the helpers
-- and what workers do with deliveries; events.lua; enqueue.lua, how mail comes in, once; operators.lua;
-- policy.lua; auth.lua; sites.lua; returns.lua; warm.lua. A library is loaded without redis.call and without
-- pairs: nothing but functions at top level.
--
-- Accounting, in the counters: enqueued + split = done + bounced + expired + cancelled + dropped + what
-- is there. A delivery to several recipients is bounced, or expired, when one of them is.
--
-- To add a move: a local function with one line on its arguments and its reply, a row at the end of
-- its file, the same move in queue/model.c, and a case in tests/unit/test_queue_redis.c.

local ID_LEN = 20 -- of a queue id; a delivery id is that, or that and "/<k>"
local REAPED_TTL = 86400000 -- ms that a reaped worker can still learn what happened to it

local function tag_of(keys)
  return string.match(keys[1], '^{[^}]*}')
end

local function time_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + t[2] / 1000
end

local function count(tag, field, n)
  if n ~= 0 then
    redis.call('HINCRBY', tag .. 'n', field, n)
  end
end

-- One command with any number of arguments; Lua's stack holds some thousands.
local function call_many(cmd, key, args)
  for i = 1, #args, 1000 do
    redis.call(cmd, key, unpack(args, i, math.min(i + 999, #args)))
  end
end

local function unlink(keys)
  for i = 1, #keys, 1000 do
    redis.call('UNLINK', unpack(keys, i, math.min(i + 999, #keys)))
  end
end

-- Lane, destination and tenant of an item.
local function place_of(item)
  local lane, dest = string.match(item, '^([^\t]*)\t([^\t]*)')
  return lane, dest, string.match(item, '^[^\t]*\t[^\t]*\t%d*\t%d*\t%d*\t([^\t]*)') or ''
end

-- Where what is ready is listed.
local function list_key(tag, lane, dest, tenant)
  return tag .. 'r:' .. lane .. ':' .. dest .. (tenant ~= '' and ' ' .. tenant or '')
end

local function turns_key(tag, lane, dest)
  return tag .. 'v:' .. lane .. ':' .. dest
end

local function take_turns(tag, lane, dest, tenant)
  local turns = turns_key(tag, lane, dest)
  local first = redis.call('ZRANGE', turns, 0, 0, 'WITHSCORES')
  redis.call('ZADD', turns, 'NX', first[2] or 0, tenant)
end

-- The list of the tenant is empty now, perhaps.
local function leave_turns(tag, lane, dest, tenant)
  if redis.call('EXISTS', list_key(tag, lane, dest, tenant)) == 0 then
    redis.call('ZREM', turns_key(tag, lane, dest), tenant)
  end
end

local function chunks_of(item)
  return tonumber(string.match(item,
    '^[^\t]*\t[^\t]*\t[^\t]*\t[^\t]*\t[^\t]*\t[^\t]*\t(%d+)') or 0)
end

-- Puts an item on its destination's list; push is RPUSH (new) or LPUSH (it had its turn before). A
-- destination that is held, or has its place in the queue, keeps it. One named "!..." belongs to a
-- route that holds: whatever comes back to it is held again.
local function make_ready(tag, id, item, push, now)
  local lane, dest, tenant = place_of(item)
  if string.sub(dest, 1, 1) == '!' then
    now = '+inf'
  end
  if redis.call(push, list_key(tag, lane, dest, tenant), id .. '\t' .. item) == 1 then
    take_turns(tag, lane, dest, tenant)
  end
  redis.call('ZADD', tag .. 'd:' .. lane, 'NX', now, dest)
end

-- A destination without items leaves d, unless an operator holds it.
local function tidy(tag, lane, dest)
  if redis.call('EXISTS', turns_key(tag, lane, dest), list_key(tag, lane, dest, '')) == 0
      and redis.call('ZSCORE', tag .. 'd:' .. lane, dest) ~= 'inf' then
    redis.call('ZREM', tag .. 'd:' .. lane, dest)
  end
end

-- Renews a worker's lease; returns its old end, false when it had none. One that is late although
-- nobody reaped it means that Redis itself was away, and that the others are as late: they get half
-- a lease to say so. This is so whichever of a worker's two links comes back first.
local function renew(tag, worker, lease, now)
  local hb = tag .. 'hb'
  local was = redis.call('ZSCORE', hb, worker)
  if was and tonumber(was) < now then
    local late = redis.call('ZRANGEBYSCORE', hb, '-inf', now, 'LIMIT', 0, 1000)
    for i = 1, #late do
      redis.call('ZADD', hb, 'XX', now + lease / 2, late[i])
    end
  end
  redis.call('ZADD', hb, now + lease, worker)
  return was
end

-- Takes deliveries out of a worker's lease. Returns their items, false where the lease was lost,
-- and the ids that were lost.
local function take(tag, worker, ids)
  if #ids == 0 then
    return {}, {}
  end
  local key = tag .. 'w:' .. worker
  local items, found, lost, seen = redis.call('HMGET', key, unpack(ids)), {}, {}, {}
  for i = 1, #ids do
    if items[i] and not seen[ids[i]] then
      seen[ids[i]] = true
      found[#found + 1] = ids[i]
    else
      items[i] = false -- said twice, it is over once
      lost[#lost + 1] = ids[i]
    end
  end
  if #found > 0 then
    redis.call('HDEL', key, unpack(found))
  end
  return items, lost
end

-- A delivery is over: adds to `keys` what goes with it, which is nothing while its message has
-- others.
local function forget(tag, id, item, keys)
  local record = string.sub(id, 1, ID_LEN)
  if #id > ID_LEN then
    if redis.call('HINCRBY', tag .. 'c', record, -1) > 0 then
      return
    end
    redis.call('HDEL', tag .. 'c', record)
  end
  local key = tag .. 'b:' .. record
  keys[#keys + 1] = key
  for n = 0, chunks_of(item) - 1 do
    keys[#keys + 1] = key .. ':' .. n
  end
end

-- Splits arguments that come in groups of `width` from `first` on into one list per place.
local function columns(args, first, width)
  local out = {}
  for w = 1, width do
    out[w] = {}
  end
  for i = first, #args, width do
    for w = 1, width do
      local column = out[w]
      column[#column + 1] = args[i + w - 1]
    end
  end
  return out
end

-- The delivery ends, the record with its last.
local function finish(keys, args, counter)
  local tag, gone = tag_of(keys), {}
  local ids = columns(args, 2, 1)[1]
  local items, lost = take(tag, args[1], ids)
  for i = 1, #ids do
    if items[i] then
      forget(tag, ids[i], items[i], gone)
    end
  end
  unlink(gone)
  count(tag, counter, #ids - #lost)
  return lost
end

-- kilat_done(worker, id...) -> lost ids
-- Delivered to all.
local function done(keys, args)
  return finish(keys, args, 'done')
end

-- kilat_bounced(worker, id...) -> lost ids
-- Failed for good.
local function bounced(keys, args)
  return finish(keys, args, 'bounced')
end

-- kilat_expired(worker, id...) -> lost ids
-- Given up after its time.
local function expired(keys, args)
  return finish(keys, args, 'expired')
end

-- kilat_retry(worker, n times: id, delay_ms, item) -> lost ids
-- Scheduled again in delay_ms with the new item.
local function retry(keys, args)
  local tag, now = tag_of(keys), time_ms()
  local cols = columns(args, 2, 3)
  local items, lost = take(tag, args[1], cols[1])
  local due, texts = {}, {}
  for i = 1, #cols[1] do
    if items[i] then
      due[#due + 1] = now + cols[2][i]
      due[#due + 1] = cols[1][i]
      texts[#texts + 1] = cols[1][i]
      texts[#texts + 1] = cols[3][i]
    end
  end
  call_many('HSET', tag .. 'ti', texts)
  call_many('ZADD', tag .. 't', due)
  count(tag, 'retried', #cols[1] - #lost)
  return lost
end

-- kilat_release(worker, id...) -> lost ids
-- Handed back: to the front of its destination's list, several in the order given.
local function release(keys, args)
  local tag, now = tag_of(keys), time_ms()
  local ids = columns(args, 2, 1)[1]
  local items, lost = take(tag, args[1], ids)
  for i = #ids, 1, -1 do
    if items[i] then
      make_ready(tag, ids[i], items[i], 'LPUSH', now)
    end
  end
  count(tag, 'released', #ids - #lost)
  return lost
end

-- kilat_pass(worker, id...) -> lost ids
-- Handed on, untried: behind what waits already, as if it had been queued ready.
local function pass(keys, args)
  local tag, now = tag_of(keys), time_ms()
  local ids = columns(args, 2, 1)[1]
  local items, lost = take(tag, args[1], ids)
  for i = 1, #ids do
    if items[i] then
      make_ready(tag, ids[i], items[i], 'RPUSH', now)
    end
  end
  count(tag, 'passed', #ids - #lost)
  return lost
end

local function bury(tag, id, item, reason, now)
  redis.call('ZADD', tag .. 'x', now, id)
  redis.call('HSET', tag .. 'xr', id, string.gsub(reason, '[%c]', ' ') .. '\t' .. item)
end

-- kilat_dead(worker, n times: id, reason) -> lost ids
-- To the dead letters; the record stays.
local function dead(keys, args)
  local tag, now = tag_of(keys), time_ms()
  local cols = columns(args, 2, 2)
  local items, lost = take(tag, args[1], cols[1])
  for i = 1, #cols[1] do
    if items[i] then
      bury(tag, cols[1][i], items[i], cols[2][i], now)
    end
  end
  count(tag, 'dead', #cols[1] - #lost)
  return lost
end

-- kilat_resplit(worker, n times: id, text) -> lost ids
-- Replaced by other deliveries of the same message, which become ready, at the front. text: their
-- number, then a line "<id>\t<item>" for each; ids with "/<k>" that the message has not had, or the
-- same id alone.
local function resplit(keys, args)
  local tag, now = tag_of(keys), time_ms()
  local cols = columns(args, 2, 2)
  local items, lost = take(tag, args[1], cols[1])
  local more = 0
  for i = 1, #cols[1] do
    if items[i] then
      local old, made = cols[1][i], {}
      for id, item in string.gmatch(cols[2][i], '\n([^\t\n]+)\t([^\n]+)') do
        table.insert(made, 1, { id, item })
      end
      if #made == 0 then
        made[1] = { old, items[i] }
      end
      if #old > ID_LEN then
        redis.call('HINCRBY', tag .. 'c', string.sub(old, 1, ID_LEN), #made - 1)
      elseif #made[1][1] > ID_LEN then
        redis.call('HSET', tag .. 'c', old, #made)
      end
      for j = 1, #made do
        make_ready(tag, made[j][1], made[j][2], 'LPUSH', now)
      end
      more = more + #made - 1
    end
  end
  count(tag, 'split', more)
  return lost
end

-- What a claim gave, when its reply was lost and it is asked again.
local function claimed_before(tag, worker, seq)
  local last = redis.call('GET', tag .. 'p:' .. worker)
  local number = last and tonumber(string.match(last, '^%d+'))
  if not number or number < seq then
    return nil
  end
  local reply, ids = {}, {}
  if number == seq then
    for id in string.gmatch(last, ' (%S+)') do
      ids[#ids + 1] = id
    end
    local items = redis.call('HMGET', tag .. 'w:' .. worker, unpack(ids))
    for i = 1, #ids do
      if items[i] then
        reply[#reply + 1] = ids[i]
        reply[#reply + 1] = items[i]
      end
    end
  end
  return reply
end

-- Takes up to max off the lists of a destination, tenants in turn: "id TAB item" each.
local function pop_in_turn(tag, lane, dest, max)
  local turns, out = turns_key(tag, lane, dest), {}
  while #out < max do
    local first = redis.call('ZRANGE', turns, 0, 1, 'WITHSCORES')
    if #first == 0 then
      break
    end
    local tenant, is_alone = first[1], #first == 2
    local weight = not is_alone and tonumber(redis.call('HGET', tag .. 'tw', tenant) or 10)
    local most = is_alone and max - #out or math.min(max - #out, math.ceil(weight / 10))
    local got = redis.call('LPOP', list_key(tag, lane, dest, tenant), most) or {}
    for i = 1, #got do
      out[#out + 1] = got[i]
    end
    if not is_alone then
      redis.call('ZINCRBY', turns, #got / weight, tenant)
    end
    leave_turns(tag, lane, dest, tenant)
  end
  return out
end

-- A list that was filled by a version without turns gets one.
local function mend_turns(tag, lane, dest)
  if not redis.call('ZSCORE', turns_key(tag, lane, dest), '')
      and redis.call('EXISTS', list_key(tag, lane, dest, '')) == 1 then
    take_turns(tag, lane, dest, '')
  end
end

local function without(names, unwanted)
  local rest = {}
  for i = 1, #names do
    if not unwanted[names[i]] then
      rest[#rest + 1] = names[i]
    end
  end
  return rest
end

-- kilat_claim(worker, lease_ms, lanes "u64n64b8", max, per_dest[, seq, dest ...])
--     -> id, item, id, item, ...
-- Leases up to max ready deliveries: lanes in the order given, of each as many as stands behind it,
-- or any; in each the destination that waited longest, which then goes to the back, and of it the
-- tenants in turn. Of the destinations behind seq urgent mail only: the worker has enough of the
-- rest. The same seq again gives the same deliveries again.
local function claim(keys, args)
  local tag, worker = tag_of(keys), args[1]
  local left, per_dest, seq = tonumber(args[4]), tonumber(args[5]), tonumber(args[6] or 0)
  local before = seq > 0 and claimed_before(tag, worker, seq)
  if before then
    return before
  end
  local now, leases, names = time_ms(), {}, { args[6] or '0' }
  local crowded, crowds = {}, math.max(#args - 6, 0)
  for i = 7, #args do
    crowded[args[i]] = true
  end
  for lane, most in string.gmatch(args[3], '(%a)(%d*)') do
    local dkey = tag .. 'd:' .. lane
    local dests, of_lane = {}, math.min(left, tonumber(most) or left)
    if of_lane > 0 then
      dests = redis.call('ZRANGEBYSCORE', dkey, '-inf', now, 'LIMIT', 0, of_lane + crowds)
    end
    if lane ~= 'u' then
      dests = without(dests, crowded)
    end
    for i = 1, #dests do
      if of_lane == 0 then
        break
      end
      mend_turns(tag, lane, dests[i])
      local got = pop_in_turn(tag, lane, dests[i], math.min(per_dest, of_lane))
      for j = 1, #got do
        local id, item = string.match(got[j], '^([^\t]*)\t?(.*)$')
        names[#names + 1] = id
        leases[#leases + 1] = id
        leases[#leases + 1] = item
      end
      left, of_lane = left - #got, of_lane - #got
      if redis.call('EXISTS', turns_key(tag, lane, dests[i])) == 0 then
        redis.call('ZREM', dkey, dests[i])
      else
        redis.call('ZADD', dkey, now, dests[i])
      end
    end
  end
  if #leases > 0 then
    call_many('HSET', tag .. 'w:' .. worker, leases)
    renew(tag, worker, args[2], now)
    if seq > 0 then
      redis.call('SET', tag .. 'p:' .. worker, table.concat(names, ' '))
    end
    count(tag, 'claimed', #leases / 2)
  end
  return leases
end

-- kilat_weights(n times: tenant, weight) -> 1
-- Those that are not the usual 10, in place of all that were told before.
local function weights(keys, args)
  local tag = tag_of(keys)
  redis.call('DEL', tag .. 'tw')
  call_many('HSET', tag .. 'tw', args)
  return 1
end

-- Moves about `limit` leases of a worker to the front of their lists, the oldest foremost. Returns
-- how many, and whether that was all.
local function hand_back(tag, worker, limit, now)
  local key, cursor, back = tag .. 'w:' .. worker, '0', {}
  repeat
    local page = redis.call('HSCAN', key, cursor, 'COUNT', 100)
    cursor = page[1]
    for i = 1, #page[2], 2 do
      back[#back + 1] = { page[2][i], page[2][i + 1] }
    end
  until cursor == '0' or #back >= limit
  table.sort(back, function(a, b) return a[1] > b[1] end)
  local moved = 0
  for i = 1, #back do
    if redis.call('HDEL', key, back[i][1]) == 1 then -- a scan may show one twice
      make_ready(tag, back[i][1], back[i][2], 'LPUSH', now)
      moved = moved + 1
    end
  end
  return moved, redis.call('EXISTS', key) == 0
end

local function make_due_ready(tag, limit, now)
  local ids = redis.call('ZRANGEBYSCORE', tag .. 't', '-inf', now, 'LIMIT', 0, limit)
  if #ids == 0 then
    return 0
  end
  local items = redis.call('HMGET', tag .. 'ti', unpack(ids))
  redis.call('ZREM', tag .. 't', unpack(ids))
  redis.call('HDEL', tag .. 'ti', unpack(ids))
  for i = 1, #ids do
    if items[i] then
      make_ready(tag, ids[i], items[i], 'RPUSH', now)
    else
      bury(tag, ids[i], '', 'scheduled without an item', now)
    end
  end
  return #ids
end

-- A worker whose lease ran out: what it held goes back; it will find a note if it is still alive.
local function reap(tag, worker, limit, now)
  local moved, is_all = hand_back(tag, worker, limit, now)
  if moved > 0 then
    redis.call('SET', tag .. 'g:' .. worker, '1', 'PX', REAPED_TTL)
  end
  if is_all then
    redis.call('ZREM', tag .. 'hb', worker)
    redis.call('DEL', tag .. 'p:' .. worker)
  end
  count(tag, 'reaped', moved)
  return moved
end

-- kilat_tick(limit) -> {moved, reaped, claimable destinations}
-- What is due becomes ready; workers that fell silent lose their leases; about limit of each a
-- call.
local function tick(keys, args)
  local tag, limit, now = tag_of(keys), math.min(tonumber(args[1]), 1000), time_ms()
  local moved, reaped, claimable = make_due_ready(tag, limit, now), 0, 0
  local silent = redis.call('ZRANGEBYSCORE', tag .. 'hb', '-inf', now, 'LIMIT', 0, 8)
  for i = 1, #silent do
    if reaped < limit then
      reaped = reaped + reap(tag, silent[i], limit - reaped, now)
    end
  end
  for lane in string.gmatch('unb', '.') do
    claimable = claimable + redis.call('ZCOUNT', tag .. 'd:' .. lane, '-inf', now)
  end
  return { moved, reaped, claimable }
end

-- kilat_beat(worker, lease_ms) -> 1 the lease held, 0 it is new, -1 it had been reaped
-- Renews the worker's lease. After -1 nothing is leased to it any more.
local function beat(keys, args)
  local tag, worker, now = tag_of(keys), args[1], time_ms()
  local lease = tonumber(args[2])
  if redis.call('DEL', tag .. 'g:' .. worker) == 1 then
    count(tag, 'reaped', (hand_back(tag, worker, 100000, now)))
    redis.call('DEL', tag .. 'p:' .. worker)
    renew(tag, worker, lease, now)
    return -1
  end
  return renew(tag, worker, lease, now) and 1 or 0
end

-- kilat_bye(worker) -> leases handed back
-- The worker ends: what it still holds goes to the front of the lists.
local function bye(keys, args)
  local tag = tag_of(keys)
  local moved = hand_back(tag, args[1], 1000000, time_ms())
  redis.call('ZREM', tag .. 'hb', args[1])
  redis.call('DEL', tag .. 'p:' .. args[1], tag .. 'g:' .. args[1])
  count(tag, 'released', moved)
  return moved
end

-- Those that move or free may do so while Redis is full.
local function register(name, callback, flag)
  redis.register_function { function_name = name, callback = callback, flags = { flag } }
end

register('kilat_done', done, 'allow-oom')
register('kilat_bounced', bounced, 'allow-oom')
register('kilat_expired', expired, 'allow-oom')
register('kilat_retry', retry, 'allow-oom')
register('kilat_release', release, 'allow-oom')
register('kilat_pass', pass, 'allow-oom')
register('kilat_dead', dead, 'allow-oom')
register('kilat_resplit', resplit, 'allow-oom')
register('kilat_claim', claim, 'allow-oom')
register('kilat_weights', weights, 'allow-oom')
register('kilat_tick', tick, 'allow-oom')
register('kilat_beat', beat, 'allow-oom')
register('kilat_bye', bye, 'allow-oom')
