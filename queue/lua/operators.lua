-- SPDX-License-Identifier: Apache-2.0
--
-- operators - what operators ask of the queue, and do to it: `kilat queue` (io/cli.c). Follows
-- kilat.lua and enqueue.lua in the library and uses their helpers. These look through lists: their
-- cost grows with the queue.

local function split_value(value)
  return string.match(value, '^([^\t]*)\t?(.*)$')
end

-- Tenants with a list there, and '' for a list that no turn knows of yet.
local function tenants_at(tag, lane, dest)
  local tenants = redis.call('ZRANGE', turns_key(tag, lane, dest), 0, -1)
  for i = 1, #tenants do
    if tenants[i] == '' then
      return tenants
    end
  end
  table.insert(tenants, 1, '')
  return tenants
end

-- Calls visit(lane, dest, list key, score) for every list of every destination, in claiming order.
local function each_list(tag, visit)
  for lane in string.gmatch('unb', '.') do
    local rows = redis.call('ZRANGE', tag .. 'd:' .. lane, 0, -1, 'WITHSCORES')
    for i = 1, #rows, 2 do
      local tenants = tenants_at(tag, lane, rows[i])
      for j = 1, #tenants do
        local key = list_key(tag, lane, rows[i], tenants[j])
        if visit(lane, rows[i], key, rows[i + 1]) == false then
          return
        end
      end
    end
  end
end

local function list_lists(tag, want_held, offset, left)
  local out = {}
  each_list(tag, function(lane, dest, key, score)
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
  each_list(tag, function(lane, dest, key, score)
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

-- kilat_audit() -> deliveries that went in, did not end, and are nowhere; negative: too many are there
-- Must be 0 at any time.
local function audit(keys, args)
  local states, missing = count_states(keys, args), 0
  local n = redis.call('HMGET', tag_of(keys) .. 'n', 'enqueued', 'split', 'done', 'bounced', 'expired',
    'cancelled', 'dropped')
  for i = 1, #n do
    missing = missing + (i <= 2 and 1 or -1) * tonumber(n[i] or 0)
  end
  for i = 2, #states, 2 do
    missing = missing - states[i]
  end
  return missing
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
  each_list(tag, function(lane, dest, key, score)
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
      tell_end(tag, 'deleted', id)
      dropped = dropped + 1
    end
  end
  unlink(gone)
  count(tag, 'dropped', dropped)
  return { dropped, leased }
end

-- Calls see(id) for every delivery of the shard.
local function each_delivery(tag, see)
  local hashes = { tag .. 'ti', tag .. 'xr' }
  local workers = redis.call('ZRANGE', tag .. 'hb', 0, -1)
  for i = 1, #workers do
    hashes[#hashes + 1] = tag .. 'w:' .. workers[i]
  end
  for i = 1, #hashes do
    local ids = redis.call('HKEYS', hashes[i])
    for j = 1, #ids do
      see(ids[j])
    end
  end
  each_list(tag, function(lane, dest, key, score)
    for first = 0, redis.call('LLEN', key) - 1, 1000 do
      local page = redis.call('LRANGE', key, first, first + 999)
      for i = 1, #page do
        see((split_value(page[i])))
      end
    end
  end)
end

-- kilat_suspects(queue id...) -> rows {queue id, 1 its record is there for good, else 0, deliveries,
-- deliveries that it should have}
-- For `kilat queue fsck`: a second look, at one moment, at messages that seemed odd.
local function suspects(keys, args)
  local tag, found, rows = tag_of(keys), {}, {}
  for i = 1, #args do
    found[args[i]] = 0
  end
  each_delivery(tag, function(id)
    local record = string.sub(id, 1, ID_LEN)
    found[record] = found[record] and found[record] + 1
  end)
  for i = 1, #args do
    local is_there = redis.call('PTTL', tag .. 'b:' .. args[i]) == -1
    rows[i] = { args[i], is_there and 1 or 0, found[args[i]],
      tonumber(redis.call('HGET', tag .. 'c', args[i]) or 1) }
  end
  return rows
end

-- Adds to `out` what is in only one half of a sorted set and its hash.
local function find_halves(tag, zset, hash, out)
  local ids = redis.call('ZRANGE', tag .. zset, 0, -1)
  for i = 1, #ids do
    if redis.call('HEXISTS', tag .. hash, ids[i]) == 0 then
      out[#out + 1] = zset .. ':' .. ids[i]
    end
  end
  ids = redis.call('HKEYS', tag .. hash)
  for i = 1, #ids do
    if not redis.call('ZSCORE', tag .. zset, ids[i]) then
      out[#out + 1] = hash .. ':' .. ids[i]
    end
  end
end

-- kilat_strays(name...) -> names
-- For `kilat queue fsck`. Of the lists "r:<lane>:<dest>[ <tenant>]" and leases "w:<worker>" that it is
-- told of, those that nobody will ever look at. Told of none: "t:<id>", "ti:<id>", "x:<id>",
-- "xr:<id>", halves of what is scheduled or dead.
local function strays(keys, args)
  local tag, out = tag_of(keys), {}
  for i = 1, #args do
    local lane, dest, tenant = string.match(args[i], '^r:(.):([^ ]*) ?(.*)$')
    local index, member = lane and 'd:' .. lane or 'hb', dest or string.sub(args[i], 3)
    local is_known = redis.call('ZSCORE', tag .. index, member)
    if is_known and lane and tenant ~= '' then
      is_known = redis.call('ZSCORE', turns_key(tag, lane, dest), tenant)
    end
    if not is_known and redis.call('EXISTS', tag .. args[i]) == 1 then
      out[#out + 1] = args[i]
    end
  end
  if #args == 0 then
    find_halves(tag, 't', 'ti', out)
    find_halves(tag, 'x', 'xr', out)
  end
  return out
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

-- Up to `max` ids that wait for a retry: with attempts behind them. Mail that its sender holds back
-- has none, and stays.
local function waiting_retries(tag, now, max)
  local after, skipped, ids = string.format('(%.17g', now), 0, {}
  repeat
    local page = redis.call('ZRANGEBYSCORE', tag .. 't', after, '+inf', 'LIMIT', skipped, 1000)
    local items = #page > 0 and redis.call('HMGET', tag .. 'ti', unpack(page)) or {}
    for i = 1, #page do
      if #ids < max and string.match(items[i] or '', '^[^\t]*\t[^\t]*\t([^\t]*)') ~= '0' then
        ids[#ids + 1] = page[i]
      end
    end
    skipped = skipped + #page
  until #page < 1000 or #ids >= max
  return ids
end

-- kilat_kick(id or "*") -> deliveries made due now
-- A queue id stands for all its deliveries. "*": those that wait for a retry, 10,000 a call; call
-- again until 0.
local function kick(keys, args)
  local tag, now, kicked = tag_of(keys), time_ms(), 0
  local ids = args[1] == '*' and waiting_retries(tag, now, 10000)
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

register('kilat_list', list, 'no-writes')
register('kilat_count', count_states, 'no-writes')
register('kilat_audit', audit, 'no-writes')
register('kilat_find', find, 'no-writes')
register('kilat_suspects', suspects, 'no-writes')
register('kilat_strays', strays, 'no-writes')
register('kilat_drop', drop, 'allow-oom')
register('kilat_hold', hold, 'allow-oom')
register('kilat_free', free, 'allow-oom')
register('kilat_kick', kick, 'allow-oom')
register('kilat_revive', revive, 'allow-oom')
