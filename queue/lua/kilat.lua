#!lua name=kilat
-- SPDX-License-Identifier: Apache-2.0
--
-- kilat - the queue's moves, each one atomic. Keys and the text of an item: queue/schema.h.
--
-- A delivery is in exactly one place: leased (w:<worker>), ready or held (r:<lane>:<dest>; held
-- when its destination's score in d:<lane> is +inf), scheduled (t, ti) or dead (x, xr). Every
-- function moves deliveries between these, or ends them; a record b:<id> goes with its last one.
--
-- KEYS[1] is always the shard's counters, such as {q3}n; all other keys share its hash tag. Time is
-- Redis' own (TIME), in ms, so gateways need no common clock. Scores in d keep fractions of a ms:
-- destinations that are served twice in the same ms still take turns.
--
-- Who moves or frees is registered with allow-oom: a full Redis must be able to drain. Only
-- kilat_enq is not, so that a full Redis refuses a whole transaction before it touches anything.
--
-- A library is loaded without redis.call and without pairs: nothing but functions at top level.
--
-- Accounting, in the counters: enqueued + split = done + cancelled + dropped + what is there.
--
-- To add a move: a local function with one line on its arguments and its reply, a row at the end,
-- the same move in queue/model.c, and a case in tests/unit/test_queue_redis.c.

local ID_LEN = 20 -- of a queue id; a delivery id is that, or that and "/<k>"
local REAPED_TTL = 86400000 -- ms that a reaped worker can still learn what happened to it
local WITHDRAWN_TTL = 120000 -- ms that a transaction of a dead connection may still arrive late

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

-- Lane and destination of an item.
local function place_of(item)
  return string.match(item, '^([^\t]*)\t([^\t]*)')
end

local function chunks_of(item)
  return tonumber(string.match(item,
    '^[^\t]*\t[^\t]*\t[^\t]*\t[^\t]*\t[^\t]*\t[^\t]*\t(%d+)') or 0)
end

-- Puts an item on its destination's list; push is RPUSH (new) or LPUSH (it had its turn before). A
-- destination that is held, or has its place in the queue, keeps it. One named "!..." belongs to a
-- route that holds: whatever comes back to it is held again.
local function make_ready(tag, id, item, push, now)
  local lane, dest = place_of(item)
  if string.sub(dest, 1, 1) == '!' then
    now = '+inf'
  end
  redis.call(push, tag .. 'r:' .. lane .. ':' .. dest, id .. '\t' .. item)
  redis.call('ZADD', tag .. 'd:' .. lane, 'NX', now, dest)
end

-- A destination without items leaves d, unless an operator holds it.
local function tidy(tag, lane, dest)
  if redis.call('EXISTS', tag .. 'r:' .. lane .. ':' .. dest) == 0
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

-- True when every chunk of a large message is there; then they are made permanent.
local function keep_chunks(tag, record, chunks)
  local keys = {}
  for n = 0, chunks - 1 do
    keys[#keys + 1] = tag .. 'b:' .. record .. ':' .. n
  end
  for i = 1, #keys do
    if redis.call('EXISTS', keys[i]) == 0 then
      return false
    end
  end
  for i = 1, #keys do
    redis.call('PERSIST', keys[i])
  end
  return true
end

-- Which records of an enqueue are there already (a transaction of unknown fate is sent again), and
-- which cannot be: true per record id in each table.
local function sift(tag, args, first)
  local stored, refused, names, keys = {}, {}, {}, {}
  for i = first, #args, 5 do
    local record = string.sub(args[i], 1, ID_LEN)
    if record ~= names[#names] then
      names[#names + 1] = record
      keys[#keys + 1] = tag .. 'b:' .. record
      if args[i + 4] ~= '0' and redis.call('EXISTS', keys[#keys]) == 0
          and not keep_chunks(tag, record, tonumber(args[i + 4])) then
        refused[record] = true
      end
    end
  end
  if #keys > 1000 or redis.call('EXISTS', unpack(keys)) > 0 then
    for i = 1, #keys do
      local ttl = redis.call('PTTL', keys[i])
      stored[names[i]] = ttl == -1
      refused[names[i]] = refused[names[i]] or ttl >= 0 -- a withdrawn one
    end
  end
  return stored, refused
end

-- kilat_enq(worker, lease_ms, n, n times: id, item, mode L|R|H, copies, chunks) -> {refused,
--     elsewhere}
-- Queues deliveries: leased, ready or held. copies: deliveries of the message with its first of
-- several, else 0. Comes before the SET b:<id> ... XX of its records in the transaction: it makes
-- them, empty, as its last act, so that a record exists exactly when its deliveries were queued,
-- and nothing is queued twice. refused: queue ids whose chunks are gone, or that were withdrawn.
-- elsewhere: deliveries queued by an earlier try whose lease has since passed on.
local function enq(keys, args)
  local tag, worker, lease, n = tag_of(keys), args[1], args[2], tonumber(args[3])
  local stored, refused = sift(tag, args, 4)
  local leases, copies, records, refusals, elsewhere, queued = {}, {}, {}, {}, {}, 0
  local now = time_ms()
  for i = 4, 3 + n * 5, 5 do
    local id, item, mode = args[i], args[i + 1], args[i + 2]
    local record = string.sub(id, 1, ID_LEN)
    if refused[record] then
      if refusals[#refusals] ~= record then
        refusals[#refusals + 1] = record
      end
    elseif stored[record] then
      if mode == 'L' and redis.call('HEXISTS', tag .. 'w:' .. worker, id) == 0 then
        elsewhere[#elsewhere + 1] = id
      end
    else
      queued = queued + 1
      if mode == 'L' then
        leases[#leases + 1] = id
        leases[#leases + 1] = item
      else
        make_ready(tag, id, item, 'RPUSH', mode == 'H' and '+inf' or now)
      end
      if #id == ID_LEN or args[i + 3] ~= '0' then
        records[#records + 1] = tag .. 'b:' .. record
        records[#records + 1] = ''
      end
      if args[i + 3] ~= '0' then
        copies[#copies + 1] = record
        copies[#copies + 1] = args[i + 3]
      end
    end
  end
  if #leases > 0 then
    call_many('HSET', tag .. 'w:' .. worker, leases)
    renew(tag, worker, lease, now)
  end
  call_many('HSET', tag .. 'c', copies)
  count(tag, 'enqueued', queued)
  for i = 1, #records, 1000 do
    redis.call('MSET', unpack(records, i, math.min(i + 999, #records)))
  end
  return { refusals, elsewhere }
end

-- kilat_done(worker, id...) -> lost ids
-- Delivered or bounced: the delivery ends, the record with its last.
local function done(keys, args)
  local tag, gone = tag_of(keys), {}
  local ids = columns(args, 2, 1)[1]
  local items, lost = take(tag, args[1], ids)
  for i = 1, #ids do
    if items[i] then
      forget(tag, ids[i], items[i], gone)
    end
  end
  unlink(gone)
  count(tag, 'done', #ids - #lost)
  return lost
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

-- True when the delivery was ready and is no more.
local function unready(tag, id, item)
  local lane, dest = place_of(item)
  if not lane then
    return false
  end
  local key = tag .. 'r:' .. lane .. ':' .. dest
  if redis.call('LREM', key, -1, id .. '\t' .. item) == 0 then
    return false
  end
  tidy(tag, lane, dest)
  return true
end

-- kilat_cancel(worker, n times: id, item) -> ids not found
-- As if never queued: for a message answered 451 whose transaction may have happened, or may yet.
-- The item says where to look when it is not leased; may be empty. What is not there leaves a mark,
-- so that its transaction cannot arrive late.
local function cancel(keys, args)
  local tag, gone, missing = tag_of(keys), {}, {}
  local cols = columns(args, 2, 2)
  local items = take(tag, args[1], cols[1])
  for i = 1, #cols[1] do
    local id, item = cols[1][i], items[i] or cols[2][i]
    if items[i] or unready(tag, id, item) then
      forget(tag, id, item, gone)
    else
      missing[#missing + 1] = id
      redis.call('SET', tag .. 'b:' .. string.sub(id, 1, ID_LEN), '', 'NX', 'PX', WITHDRAWN_TTL)
    end
  end
  unlink(gone)
  count(tag, 'cancelled', #cols[1] - #missing)
  return missing
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

-- kilat_claim(worker, lease_ms, lanes "unb", max, per_dest[, seq]) -> id, item, id, item, ...
-- Leases up to max ready deliveries: lanes in the order given; in each the destination that waited
-- longest, which then goes to the back. The same seq again gives the same deliveries again.
local function claim(keys, args)
  local tag, worker = tag_of(keys), args[1]
  local left, per_dest, seq = tonumber(args[4]), tonumber(args[5]), tonumber(args[6] or 0)
  local before = seq > 0 and claimed_before(tag, worker, seq)
  if before then
    return before
  end
  local now, leases, names = time_ms(), {}, { args[6] or '0' }
  for lane in string.gmatch(args[3], '.') do
    local dkey = tag .. 'd:' .. lane
    local dests = {}
    if left > 0 then
      dests = redis.call('ZRANGEBYSCORE', dkey, '-inf', now, 'LIMIT', 0, left)
    end
    for i = 1, #dests do
      if left == 0 then
        break
      end
      local list = tag .. 'r:' .. lane .. ':' .. dests[i]
      local got = redis.call('LPOP', list, math.min(per_dest, left)) or {}
      for j = 1, #got do
        local id, item = string.match(got[j], '^([^\t]*)\t?(.*)$')
        names[#names + 1] = id
        leases[#leases + 1] = id
        leases[#leases + 1] = item
      end
      left = left - #got
      if redis.call('EXISTS', list) == 0 then
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

-- What operators ask and do. These look through lists: their cost grows with the queue.

local function split_value(value)
  return string.match(value, '^([^\t]*)\t?(.*)$')
end

-- Calls visit(lane, dest, list key, score) for every destination, in claiming order.
local function each_dest(tag, visit)
  for lane in string.gmatch('unb', '.') do
    local rows = redis.call('ZRANGE', tag .. 'd:' .. lane, 0, -1, 'WITHSCORES')
    for i = 1, #rows, 2 do
      if visit(lane, rows[i], tag .. 'r:' .. lane .. ':' .. rows[i], rows[i + 1]) == false then
        return
      end
    end
  end
end

local function list_lists(tag, want_held, offset, left)
  local out = {}
  each_dest(tag, function(lane, dest, key, score)
    if (score == 'inf') ~= want_held then
      return true
    end
    local len = redis.call('LLEN', key)
    if offset < len then
      local page = redis.call('LRANGE', key, offset, offset + left - 1)
      for i = 1, #page do
        local id, item = split_value(page[i])
        out[#out + 1] = { id, item, dest }
      end
      left = left - #page
    end
    offset = math.max(0, offset - len)
    return left > 0
  end)
  return out
end

local function list_zset(tag, zset, hash, offset, left)
  local out = {}
  local rows = redis.call('ZRANGE', tag .. zset, offset, offset + left - 1, 'WITHSCORES')
  for i = 1, #rows, 2 do
    local text = redis.call('HGET', tag .. hash, rows[i]) or ''
    local score = string.format('%d', tonumber(rows[i + 1]))
    if zset == 'x' then
      local reason, item = split_value(text)
      out[#out + 1] = { rows[i], item, score, reason }
    else
      out[#out + 1] = { rows[i], text, score }
    end
  end
  return out
end

local function list_leased(tag, offset, left)
  local out = {}
  local workers = redis.call('ZRANGE', tag .. 'hb', 0, -1)
  for i = 1, #workers do
    local rows = redis.call('HGETALL', tag .. 'w:' .. workers[i])
    for j = 1, #rows, 2 do
      if offset > 0 then
        offset = offset - 1
      elseif left > 0 then
        left = left - 1
        out[#out + 1] = { rows[j], rows[j + 1], workers[i] }
      end
    end
  end
  return out
end

-- kilat_list(ready|scheduled|leased|held|dead, offset, count) -> rows {id, item, info[, reason]}
-- info: destination (ready, held), due ms (scheduled), worker (leased), died ms (dead, with the
-- reason).
local function list(keys, args)
  local tag, what, offset, left = tag_of(keys), args[1], tonumber(args[2]), tonumber(args[3])
  if left < 1 then
    return {}
  elseif what == 'scheduled' then
    return list_zset(tag, 't', 'ti', offset, left)
  elseif what == 'dead' then
    return list_zset(tag, 'x', 'xr', offset, left)
  elseif what == 'leased' then
    return list_leased(tag, offset, left)
  elseif what == 'ready' or what == 'held' then
    return list_lists(tag, what == 'held', offset, left)
  end
  return redis.error_reply('ERR ready, scheduled, leased, held or dead')
end

-- kilat_count() -> "ready", n, "scheduled", n, "leased", n, "held", n, "dead", n
local function count_states(keys, args)
  local tag, ready, held, leased = tag_of(keys), 0, 0, 0
  each_dest(tag, function(lane, dest, key, score)
    if score == 'inf' then
      held = held + redis.call('LLEN', key)
    else
      ready = ready + redis.call('LLEN', key)
    end
  end)
  local workers = redis.call('ZRANGE', tag .. 'hb', 0, -1)
  for i = 1, #workers do
    leased = leased + redis.call('HLEN', tag .. 'w:' .. workers[i])
  end
  return { 'ready', ready, 'scheduled', redis.call('ZCARD', tag .. 't'), 'leased', leased,
    'held', held, 'dead', redis.call('ZCARD', tag .. 'x') }
end

-- Rows {state, id, item, info} of a hash whose id is this one, or begins with this queue id. A
-- message with one delivery is found at once; others have ids that only a scan tells.
local function look_up(rows, state, hash, id, info, is_several)
  local item = redis.call('HGET', hash, id)
  if item then
    rows[#rows + 1] = { state, id, item, info }
  end
  local cursor, seen = is_several and '0' or nil, {}
  while cursor do
    local page = redis.call('HSCAN', hash, cursor, 'MATCH', id .. '/*', 'COUNT', 1000)
    for i = 1, #page[2], 2 do
      if not seen[page[2][i]] then
        seen[page[2][i]] = true
        rows[#rows + 1] = { state, page[2][i], page[2][i + 1], info }
      end
    end
    cursor = page[1] ~= '0' and page[1] or nil
  end
end

local function look_through_lists(tag, rows, id, wanted)
  each_dest(tag, function(lane, dest, key, score)
    for first = 0, redis.call('LLEN', key) - 1, 1000 do
      local page = redis.call('LRANGE', key, first, first + 999)
      for i = 1, #page do
        if string.sub(page[i], 1, #id) == id then
          local found, item = split_value(page[i])
          if found == id or #id == ID_LEN and string.sub(found, ID_LEN + 1, ID_LEN + 1) == '/' then
            rows[#rows + 1] = { score == 'inf' and 'held' or 'ready', found, item, dest }
          end
        end
      end
    end
    return #rows < wanted
  end)
end

local function find_rows(tag, id)
  local rows, wanted = {}, 1
  local several = #id == ID_LEN and redis.call('HGET', tag .. 'c', id)
  if several then
    wanted = tonumber(several)
  end
  look_up(rows, 'scheduled', tag .. 'ti', id, '', several)
  look_up(rows, 'dead', tag .. 'xr', id, '', several)
  local workers = redis.call('ZRANGE', tag .. 'hb', 0, -1)
  for i = 1, #workers do
    look_up(rows, 'leased', tag .. 'w:' .. workers[i], id, workers[i], several)
  end
  for i = 1, #rows do
    if rows[i][1] == 'scheduled' then
      rows[i][4] = string.format('%d', tonumber(redis.call('ZSCORE', tag .. 't', rows[i][2]) or 0))
    elseif rows[i][1] == 'dead' then
      rows[i][4], rows[i][3] = split_value(rows[i][3])
    end
  end
  if #rows < wanted then
    look_through_lists(tag, rows, id, wanted)
  end
  return rows
end

-- kilat_find(id) -> rows {state, delivery id, item, info}; none: empty
-- All deliveries of a queue id, or the one of a delivery id. info as in kilat_list; dead: the
-- reason.
local function find(keys, args)
  return find_rows(tag_of(keys), args[1])
end

-- kilat_drop(id) -> {dropped, still leased}
-- Ends all deliveries of a queue id (or the one of a delivery id) but those being delivered.
local function drop(keys, args)
  local tag, gone, dropped, leased = tag_of(keys), {}, 0, 0
  local rows = find_rows(tag, args[1])
  for i = 1, #rows do
    local state, id, item = rows[i][1], rows[i][2], rows[i][3]
    if state == 'leased' then
      leased = leased + 1
    else
      if state == 'scheduled' then
        redis.call('ZREM', tag .. 't', id)
        redis.call('HDEL', tag .. 'ti', id)
      elseif state == 'dead' then
        redis.call('ZREM', tag .. 'x', id)
        redis.call('HDEL', tag .. 'xr', id)
      else
        unready(tag, id, item)
      end
      forget(tag, id, item, gone)
      dropped = dropped + 1
    end
  end
  unlink(gone)
  count(tag, 'dropped', dropped)
  return { dropped, leased }
end

-- kilat_hold(dest, lane) -> 1
-- No worker claims from it until it is freed; also when it has nothing yet. lane "*": all three.
local function hold(keys, args)
  for lane in string.gmatch(args[2] == '*' and 'unb' or args[2], '.') do
    redis.call('ZADD', tag_of(keys) .. 'd:' .. lane, '+inf', args[1])
  end
  return 1
end

-- kilat_free(dest or "*") -> destinations freed
local function free(keys, args)
  local tag, freed = tag_of(keys), 0
  for lane in string.gmatch('unb', '.') do
    local dests = { args[1] }
    if args[1] == '*' then
      dests = redis.call('ZRANGEBYSCORE', tag .. 'd:' .. lane, '+inf', '+inf')
    end
    for i = 1, #dests do
      if redis.call('ZSCORE', tag .. 'd:' .. lane, dests[i]) == 'inf' then
        redis.call('ZADD', tag .. 'd:' .. lane, 0, dests[i])
        tidy(tag, lane, dests[i])
        freed = freed + 1
      end
    end
  end
  return freed
end

-- The ids in a hash that a queue id or delivery id stands for.
local function ids_in(hash, tag, id)
  local rows, ids = {}, {}
  look_up(rows, '', hash, id, '', #id == ID_LEN and redis.call('HEXISTS', tag .. 'c', id) == 1)
  for i = 1, #rows do
    ids[i] = rows[i][2]
  end
  return ids
end

-- kilat_kick(id or "*") -> deliveries made due now
-- A queue id stands for all its deliveries. "*": 10,000 a call; call again until 0.
local function kick(keys, args)
  local tag, now, kicked = tag_of(keys), time_ms(), 0
  local after = string.format('(%.17g', now)
  local ids = args[1] == '*'
      and redis.call('ZRANGEBYSCORE', tag .. 't', after, '+inf', 'LIMIT', 0, 10000)
      or ids_in(tag .. 'ti', tag, args[1])
  for i = 1, #ids do
    if redis.call('ZADD', tag .. 't', 'XX', 'CH', 'LT', now, ids[i]) == 1 then
      kicked = kicked + 1
    end
  end
  return kicked
end

-- An item with its attempts forgotten and as long to live, from now, as it had when it was
-- accepted.
local function reborn(item, now)
  local lane, dest, accepted, expires, rest =
      string.match(item, '^([^\t]*)\t([^\t]*)\t%d+\t(%d+)\t(%d+)\t(.*)$')
  if not lane then
    return item
  end
  local until_ms = math.max(tonumber(expires), now + expires - accepted)
  return table.concat({ lane, dest, '0', accepted, string.format('%d', until_ms), rest }, '\t')
end

-- kilat_revive(id or "*") -> dead letters made ready
-- A queue id stands for all its deliveries. "*": 1,000 a call; call again until 0.
local function revive(keys, args)
  local tag, now, revived = tag_of(keys), time_ms(), 0
  local ids = args[1] == '*' and redis.call('ZRANGE', tag .. 'x', 0, 999)
      or ids_in(tag .. 'xr', tag, args[1])
  for i = 1, #ids do
    local text = redis.call('HGET', tag .. 'xr', ids[i])
    local reason, item = split_value(text or '')
    if text and place_of(item) then
      redis.call('ZREM', tag .. 'x', ids[i])
      redis.call('HDEL', tag .. 'xr', ids[i])
      make_ready(tag, ids[i], reborn(item, now), 'RPUSH', now)
      revived = revived + 1
    end
  end
  count(tag, 'revived', revived)
  return revived
end

-- Those that move or free may do so while Redis is full.
local function register(name, callback, flag)
  redis.register_function { function_name = name, callback = callback, flags = { flag } }
end

redis.register_function('kilat_enq', enq)
register('kilat_done', done, 'allow-oom')
register('kilat_retry', retry, 'allow-oom')
register('kilat_release', release, 'allow-oom')
register('kilat_dead', dead, 'allow-oom')
register('kilat_cancel', cancel, 'allow-oom')
register('kilat_resplit', resplit, 'allow-oom')
register('kilat_claim', claim, 'allow-oom')
register('kilat_tick', tick, 'allow-oom')
register('kilat_beat', beat, 'allow-oom')
register('kilat_bye', bye, 'allow-oom')
register('kilat_list', list, 'no-writes')
register('kilat_count', count_states, 'no-writes')
register('kilat_find', find, 'no-writes')
register('kilat_drop', drop, 'allow-oom')
register('kilat_hold', hold, 'allow-oom')
register('kilat_free', free, 'allow-oom')
register('kilat_kick', kick, 'allow-oom')
register('kilat_revive', revive, 'allow-oom')
