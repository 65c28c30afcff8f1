-- SPDX-License-Identifier: Apache-2.0
--
-- events - what happens to mail is told in a stream of each shard, e: kilat_tell and
-- kilat_accepted. Follows kilat.lua in the library and uses its helpers.
--
-- An entry has one field, j: the event in JSON. Its id is its number: consumers remember the last one
-- they have seen. What the entries cost is counted in the field event_octets of the counters, as
-- octets of JSON and ENTRY for each; above the budget the oldest tenth goes. So events never take more
-- memory than they were given, and mail never waits for them; what goes unread is counted too.

local ENTRY = 64 -- octets that an entry costs beside its JSON, about

local function trim(tag, octets, budget)
  local len = redis.call('XLEN', tag .. 'e')
  local keep = math.floor(len * budget * 9 / (octets * 10))
  local gone = redis.call('XTRIM', tag .. 'e', 'MAXLEN', keep)
  redis.call('HSET', tag .. 'n', 'event_octets', math.floor(octets * keep / len))
  count(tag, 'events_trimmed', gone)
end

local function tell(tag, budget, texts)
  local octets = 0
  for i = 1, #texts do
    redis.call('XADD', tag .. 'e', '*', 'j', texts[i])
    octets = octets + #texts[i] + ENTRY
  end
  if #texts > 0 then
    count(tag, 'events', #texts)
    local total = redis.call('HINCRBY', tag .. 'n', 'event_octets', octets)
    if total > tonumber(budget) then
      trim(tag, total, tonumber(budget))
    end
  end
end

-- What became of a delivery that no worker ended, where events are told at all. These are few: the
-- next ones trim.
local function tell_end(tag, name, id)
  if redis.call('EXISTS', tag .. 'e') == 1 then
    redis.call('XADD', tag .. 'e', '*', 'j', string.format(
      '{"event":"%s","time_ms":%.0f,"id":"%s","delivery":"%s"}',
      name, math.floor(time_ms()), string.sub(id, 1, ID_LEN), id))
    redis.call('HINCRBY', tag .. 'n', 'event_octets', 128 + ENTRY)
    count(tag, 'events', 1)
  end
end

-- kilat_tell(worker, budget, n times: delivery id, JSON) -> {}
-- What became of deliveries; comes before the call that ends them, so that no end goes untold.
local function told(keys, args)
  tell(tag_of(keys), args[2], columns(args, 3, 2)[2])
  return {}
end

-- kilat_accepted(worker, budget, n times: queue id, JSON) -> how many were told
-- Behind kilat_enq in its transaction: tells of those messages that are in the queue.
local function accepted(keys, args)
  local tag, cols, texts = tag_of(keys), columns(args, 3, 2), {}
  for i = 1, #cols[1] do
    if redis.call('PTTL', tag .. 'b:' .. cols[1][i]) == -1 then
      texts[#texts + 1] = cols[2][i]
    end
  end
  tell(tag, args[2], texts)
  return #texts
end

register('kilat_tell', told, 'allow-oom')
register('kilat_accepted', accepted, 'allow-oom')
