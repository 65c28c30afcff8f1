-- SPDX-License-Identifier: Apache-2.0
--
-- enqueue - mail comes in, once, and is taken back: kilat_enq and kilat_cancel. Follows kilat.lua in
-- the library and uses its helpers.
--
-- Idempotency keys: k:<key> holds "<queue id> <digest>", for a time, of the message that was queued
-- under it. A message with the same key and digest is not queued; its sender hears the first id. With
-- another digest it is a conflict. The key outlives its message. It is made after the records, last of
-- all: a key that is there proves that its message was queued.
--
-- Whoever hears the first id was promised that mail. So the value gets a third word, "+", and from
-- then on the first message cannot be withdrawn any more: a gateway that answered 451, because it
-- never saw the end of its transaction, finds the mark when it comes to take the message back, and
-- hands it to the others instead. A withdrawal that comes first takes the key along, and the message
-- that is sent again is a new one.

local WITHDRAWN_TTL = 120000 -- ms that a transaction of a dead connection may still arrive late

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

local function drop_chunks(tag, record, chunks)
  local keys = {}
  for n = 0, chunks - 1 do
    keys[#keys + 1] = tag .. 'b:' .. record .. ':' .. n
  end
  unlink(keys)
end

-- What an enqueue says of keys, from its argument `first` on; nil: no message has one.
-- want: record -> {key, digest}; held: key -> value, read or made by this call; made: keys to write;
-- repeats: what the caller hears, record, first id, ...
local function keys_of(tag, args, first)
  if not args[first] then
    return nil
  end
  local keyed = { ttl = args[first], want = {}, held = {}, made = {}, repeats = {} }
  for i = first + 1, #args, 3 do
    keyed.want[args[i]] = { tag .. 'k:' .. args[i + 1], args[i + 2] }
  end
  return keyed
end

local function split_key(value)
  return string.match(value, '^(%S+) (%S+)( ?%+?)$')
end

-- Nobody may withdraw the message of this key any more.
local function promise(key, value, mark)
  if mark == '' then
    value = value .. ' +'
    redis.call('SET', key, value, 'XX', 'KEEPTTL')
  end
  return value
end

-- The queue id that stands for this message, '' for a conflict; nil: the key is its own, or nobody's.
local function first_id(keyed, record, record_key)
  local want = keyed.want[record]
  local value = want and (keyed.held[want[1]] or redis.call('GET', want[1]))
  if not value then
    return nil
  end
  local id, digest, mark = split_key(value)
  keyed.held[want[1]] = value
  if id == record then -- sent again; without a record it is over already
    return redis.call('EXISTS', record_key) == 0 and id or nil
  elseif redis.call('PTTL', record_key) == -1 then -- queued before the key passed on to another
    return nil
  elseif digest ~= want[2] then
    return ''
  end
  keyed.held[want[1]] = promise(want[1], value, mark)
  return id
end

-- The key becomes this message's, when all else is done; unless it was withdrawn.
local function claim_key(keyed, record, record_key)
  local want = keyed.want[record]
  if want and not keyed.held[want[1]] and redis.call('PTTL', record_key) < 0 then
    keyed.held[want[1]] = record .. ' ' .. want[2]
    keyed.made[#keyed.made + 1] = want[1]
  end
end

-- What hinders the records of an enqueue: which are there already (a transaction of unknown fate is
-- sent again), and which cannot be, or whose keys another message has: true per record id.
local function sift(tag, args, last, keyed)
  local stored, refused, repeated, names, keys = {}, {}, {}, {}, {}
  for i = 4, last, 5 do
    local record = string.sub(args[i], 1, ID_LEN)
    if record ~= names[#names] then
      local key = tag .. 'b:' .. record
      local first = keyed and first_id(keyed, record, key)
      names[#names + 1] = record
      keys[#keys + 1] = key
      if first then
        repeated[record] = true
        keyed.repeats[#keyed.repeats + 1] = record
        keyed.repeats[#keyed.repeats + 1] = first
        drop_chunks(tag, record, tonumber(args[i + 4]))
      elseif args[i + 4] ~= '0' and redis.call('EXISTS', key) == 0
          and not keep_chunks(tag, record, tonumber(args[i + 4])) then
        refused[record] = true
      elseif keyed then
        claim_key(keyed, record, key)
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
  return stored, refused, repeated
end

-- kilat_enq(worker, lease_ms, n, n times: id, item, mode L|R|H|S<due ms>, copies, chunks
--     [, key_ttl_ms, as often as there are messages with a key: queue id, key, digest])
--     -> {refused, elsewhere[, repeats]}
-- Queues deliveries: leased, ready, held or scheduled. copies: deliveries of the message with its
-- first of several, else 0. Comes before the SET b:<id> ... XX of its records in the transaction: it
-- makes them, empty, when the deliveries are in their places, so that a record exists exactly when its
-- deliveries were queued, and nothing is queued twice. refused: queue ids whose chunks are gone, or
-- that were withdrawn. elsewhere: deliveries queued by an earlier try whose lease has since passed on.
-- repeats, when there are keys: a queue id that was not queued and the one that stands for it, '' for
-- a conflict, and so on; its own id: it was queued by an earlier try, and is over.
local function enq(keys, args)
  local tag, worker, lease, n = tag_of(keys), args[1], args[2], tonumber(args[3])
  local keyed = keys_of(tag, args, 4 + n * 5)
  local stored, refused, repeated = sift(tag, args, 3 + n * 5, keyed)
  local leases, due, texts = {}, {}, {}
  local copies, records, refusals, elsewhere, queued = {}, {}, {}, {}, 0
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
    elseif not repeated[record] then
      queued = queued + 1
      if mode == 'L' then
        leases[#leases + 1] = id
        leases[#leases + 1] = item
      elseif #mode > 1 then
        due[#due + 1] = string.sub(mode, 2)
        due[#due + 1] = id
        texts[#texts + 1] = id
        texts[#texts + 1] = item
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
  call_many('HSET', tag .. 'ti', texts)
  call_many('ZADD', tag .. 't', due)
  call_many('HSET', tag .. 'c', copies)
  count(tag, 'enqueued', queued)
  for i = 1, #records, 1000 do
    redis.call('MSET', unpack(records, i, math.min(i + 999, #records)))
  end
  if not keyed then
    return { refusals, elsewhere }
  end
  for i = 1, #keyed.made do
    redis.call('SET', keyed.made[i], keyed.held[keyed.made[i]], 'PX', keyed.ttl)
  end
  count(tag, 'repeated', #keyed.repeats / 2)
  return { refusals, elsewhere, keyed.repeats }
end

-- The list of a delivery that is ready with this very item; nil: it is not.
local function list_of(tag, id, item)
  local lane, dest, tenant = place_of(item)
  local key = lane and list_key(tag, lane, dest, tenant)
  return key and redis.call('LPOS', key, id .. '\t' .. item, 'RANK', -1) and key
end

local function is_scheduled(tag, id, item)
  return redis.call('HGET', tag .. 'ti', id) == item
end

-- True when the delivery was ready and is no more.
local function unready(tag, id, item)
  local lane, dest, tenant = place_of(item)
  if not lane then
    return false
  end
  local key = list_key(tag, lane, dest, tenant)
  if redis.call('LREM', key, -1, id .. '\t' .. item) == 0 then
    return false
  end
  leave_turns(tag, lane, dest, tenant)
  tidy(tag, lane, dest)
  return true
end

-- True when the delivery was scheduled, with this very item, and is no more.
local function unschedule(tag, id, item)
  if not is_scheduled(tag, id, item) then
    return false
  end
  redis.call('ZREM', tag .. 't', id)
  redis.call('HDEL', tag .. 'ti', id)
  return true
end

-- True when these deliveries are all where a withdrawal reaches them.
local function is_in_reach(tag, ids, texts, items, record)
  for i = 1, #ids do
    local text = string.match(texts[i], '^[^\n]*')
    if string.sub(ids[i], 1, ID_LEN) == record and not items[i]
        and not list_of(tag, ids[i], text) and not is_scheduled(tag, ids[i], text) then
      return false
    end
  end
  return true
end

-- Which messages of a withdrawal stay: true per record. One whose sender, trying again, was told that
-- it is queued; one that others have begun to deliver, so that whoever tries again may hear the
-- same; and one whose key may have ended, when nobody knows. For all others the key goes now.
local function kept_by_key(tag, ids, texts, items, now)
  local kept, known = {}, {}
  for i = 1, #ids do
    local record = string.sub(ids[i], 1, ID_LEN)
    local accepted, key, ttl =
        string.match(texts[i], '^[^\t]*\t[^\t]*\t%d+\t(%d+)\t[^\n]*\n(%x+) (%d+)$')
    if key and not known[record] then
      known[record] = true
      key = tag .. 'k:' .. key
      local value = redis.call('GET', key)
      local id, _, mark = split_key(value or '')
      if id ~= record then
        kept[record] = now - accepted >= tonumber(ttl)
      elseif mark ~= '' or not is_in_reach(tag, ids, texts, items, record) then
        kept[record] = true
        promise(key, value, mark)
      else
        redis.call('DEL', key)
      end
    end
  end
  return kept
end

-- kilat_cancel(worker, n times: id, item [LF key SP key_ttl_ms]) -> ids that are not there, or stay
-- As if never queued: for a message answered 451 whose transaction may have happened, or may yet.
-- The item says where to look when it is not leased; may be empty. What is not there leaves a mark,
-- so that its transaction cannot arrive late. What stays is handed back.
local function cancel(keys, args)
  local tag, now, gone, missing = tag_of(keys), time_ms(), {}, {}
  local cols = columns(args, 2, 2)
  local items = take(tag, args[1], cols[1])
  local kept = kept_by_key(tag, cols[1], cols[2], items, now)
  for i = 1, #cols[1] do
    local id, item = cols[1][i], items[i] or string.match(cols[2][i], '^[^\n]*')
    local record = string.sub(id, 1, ID_LEN)
    if not kept[record] and (items[i] or unready(tag, id, item) or unschedule(tag, id, item)) then
      forget(tag, id, item, gone)
      tell_end(tag, 'withdrawn', id)
    else
      missing[#missing + 1] = id
      if items[i] then
        make_ready(tag, id, item, 'LPUSH', now)
      else
        redis.call('SET', tag .. 'b:' .. record, '', 'NX', 'PX', WITHDRAWN_TTL)
      end
    end
  end
  unlink(gone)
  count(tag, 'cancelled', #cols[1] - #missing)
  return missing
end

redis.register_function('kilat_enq', enq)
register('kilat_cancel', cancel, 'allow-oom')
