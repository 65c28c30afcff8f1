-- SPDX-License-Identifier: Apache-2.0
--
-- sites - connections to hosts that have a limit, shared by all workers of all nodes. Asked by
-- io/relay_sites.c, some sites in one call; KEYS[1] is {cfg}. A site is told by its name only; its limits
-- come with each question. core/relay/pool_site.c says when a worker asks for what.
--
--     {cfg}sw             zset: worker -> lease expiry, Redis' clock in ms
--     {cfg}so:<worker>    set: sites where that worker has a share or waits
--     {cfg}st:<site>      hash: worker -> "<connections> <of them plain>"
--     {cfg}sq:<site>      zset: worker that waits -> since when; below 0: for urgent mail
--     {cfg}sn:<worker>    set: news for that worker, "<letter><site>":
--                           f  something is free: ask again
--                           u  urgent mail of another waits for a connection of yours
--                           t  other mail does;  p  other mail waits for one that is plain
--
--     {cfg}sr:<site>      string, PX: ms until which its rate is used up
--     {cfg}sa:<site>      string, PX: its pace (thousandths of its limits that it gets), the time when it
--                         was halved last, and messages taken since the last step
--
-- What a worker keeps is what it uses, always; whatever is free goes by turns, to who waits longest,
-- urgent mail first. Who has something already and would like more gets what nobody waits for, and
-- does not wait. A worker whose lease ended has nothing: its connections were closed before.

local FRESH = 2000 -- ms since its last call that one who waits keeps its place for

local function site_news(tag, workers, letter, site)
  for i = 1, #workers do
    redis.call('SADD', tag .. 'sn:' .. workers[i], letter .. site)
  end
end

-- What `worker` has, what all others have, and who has something.
local function site_shares(tag, site, worker)
  local all, own, own_plain, total, plain, holders =
      redis.call('HGETALL', tag .. 'st:' .. site), 0, 0, 0, 0, {}
  for i = 1, #all, 2 do
    local t, p = string.match(all[i + 1], '^(%d+) (%d+)$')
    holders[#holders + 1] = all[i]
    if all[i] == worker then
      own, own_plain = tonumber(t), tonumber(p)
    else
      total, plain = total + t, plain + p
    end
  end
  return own, own_plain, total, plain, holders
end

-- Workers that wait before this one, and those of them with urgent mail. Who stopped asking does not count.
local function site_ahead(tag, site, worker, fresh)
  local queue, all, urgent = redis.call('ZRANGE', tag .. 'sq:' .. site, 0, -1, 'WITHSCORES'), 0, 0
  for i = 1, #queue, 2 do
    if queue[i] == worker then
      break
    end
    if tonumber(redis.call('ZSCORE', tag .. 'sw', queue[i]) or 0) > fresh then
      all = all + 1
      urgent = urgent + (tonumber(queue[i + 1]) < 0 and 1 or 0)
    end
  end
  return all, urgent
end

-- Who got something of what was wanted is behind the others for the rest.
local function site_wait(tag, site, worker, is_urgent, has_more, now)
  local key = tag .. 'sq:' .. site
  local since = redis.call('ZSCORE', key, worker)
  if has_more or not since or (tonumber(since) < 0) ~= is_urgent then
    redis.call('ZADD', key, is_urgent and now - 1e15 or now, worker)
  end
end

local function site_free(tag, site)
  site_news(tag, redis.call('ZRANGE', tag .. 'sq:' .. site, 0, -1), 'f', site)
end

local function site_leave(tag, worker)
  local sites = redis.call('SMEMBERS', tag .. 'so:' .. worker)
  for i = 1, #sites do
    redis.call('HDEL', tag .. 'st:' .. sites[i], worker)
    redis.call('ZREM', tag .. 'sq:' .. sites[i], worker)
    site_free(tag, sites[i])
  end
  redis.call('DEL', tag .. 'so:' .. worker, tag .. 'sn:' .. worker)
  redis.call('ZREM', tag .. 'sw', worker)
end

-- What is wanted beyond what is there: no more than that, no less than nothing.
local function some_of(room, wanted)
  return math.max(0, math.min(room, wanted))
end

-- Writes down what a worker has now, and tells who waits when it is less than it was.
local function site_store(tag, site, worker, t, p, is_less)
  if t > 0 then
    redis.call('HSET', tag .. 'st:' .. site, worker, t .. ' ' .. p)
  else
    redis.call('HDEL', tag .. 'st:' .. site, worker)
  end
  if is_less then
    site_free(tag, site)
  end
end

-- One site: ask is {most, plain most, kept, plain kept, then wanted: urgent, plain, plain on a
-- connection that is there; then welcome: urgent, plain}.
local function site_settle(tag, site, worker, ask, now, fresh)
  local t0, p0, others, others_plain, holders = site_shares(tag, site, worker)
  local room, plain_room = ask[1] - others, ask[2] - others_plain
  local t = math.min(ask[3], math.max(t0, room))
  local p = math.min(ask[4], math.max(p0, plain_room), t)
  local ahead, urgent_ahead = site_ahead(tag, site, worker, fresh)
  local u = some_of(room - t - urgent_ahead, ask[5])
  t = t + u
  local more = some_of(math.min(room - t, plain_room - p) - ahead, ask[6])
  t, p = t + more, p + more
  local turned = some_of(math.min(plain_room - ahead, t) - p, ask[7])
  p = p + turned
  local is_urgent = u < ask[5]
  local is_short = is_urgent or more < ask[6] or turned < ask[7]
  local has_more = u + more + turned > 0
  if not is_short then
    u = some_of(room - t - ahead, ask[8])
    more = some_of(math.min(room - t - u, plain_room - p) - ahead, ask[9])
    t, p = t + u + more, p + more
  end
  site_store(tag, site, worker, t, p, t < t0 or p < p0)
  if is_short then
    site_wait(tag, site, worker, is_urgent, has_more, now)
    if is_urgent and room <= t then
      site_news(tag, holders, 'u', site)
    elseif not is_urgent and plain_room <= p then
      site_news(tag, holders, 'p', site)
    elseif not is_urgent and room <= t then
      site_news(tag, holders, 't', site)
    end
  elseif redis.call('ZREM', tag .. 'sq:' .. site, worker) == 1 and room > t then
    site_free(tag, site)
  end
  redis.call((t > 0 or is_short) and 'SADD' or 'SREM', tag .. 'so:' .. worker, site)
  return t .. ' ' .. p .. (is_short and ' 1' or ' 0')
end

-- Messages that may begin, and after how many ms: of a bucket of so many (ask[12]) that gets one more each
-- interval (ask[11]). Who must wait has his part set aside, so that the order of asking is kept.
local function site_tokens(tag, site, ask, now)
  local wanted, interval, burst = ask[10], ask[11] / 1000, ask[12]
  if wanted == 0 then
    return '0 0'
  end
  local key = tag .. 'sr:' .. site
  local used = math.max(now, tonumber(redis.call('GET', key) or 0))
  local ready = math.floor((now + (burst - 1) * interval - used) / interval) + 1
  local count = math.min(wanted, burst, math.max(1, ready))
  local wait = used + (count - burst) * interval - now
  if wait <= 0 then
    wait = 0
  else
    count = math.min(wanted, burst)
    wait = used + (count - burst) * interval - now
  end
  used = used + count * interval
  redis.call('SET', key, string.format('%.3f', used), 'PX', math.ceil(used - now) + 1)
  return count .. ' ' .. math.ceil(wait)
end

local PACE_MIN = 62
local PACE_STEP = 50       -- more for each PACE_GOOD messages taken
local PACE_GOOD = 20
local PACE_TTL = 3600000
local CUT_EVERY = 5000     -- ms: replies to what was under way ask for the same

-- The pace of a site, after what the worker heard: that it asks for less (ask[13]), or took so many
-- messages (ask[14]).
local function site_pace(tag, site, ask, now)
  local key = tag .. 'sa:' .. site
  local value = redis.call('GET', key)
  local pace, cut, good = string.match(value or '1000 0 0', '^(%d+) (%d+) (%d+)$')
  pace, cut, good = tonumber(pace), tonumber(cut), tonumber(good)
  if ask[13] > 0 and now - cut >= CUT_EVERY then
    pace, cut, good = math.max(PACE_MIN, math.floor(pace / 2)), math.floor(now), 0
  elseif value and ask[14] > 0 then
    good = good + ask[14]
    pace, good = pace + math.floor(good / PACE_GOOD) * PACE_STEP, good % PACE_GOOD
  else
    return pace
  end
  if pace >= 1000 then
    redis.call('DEL', key)
    return 1000
  end
  redis.call('SET', key, string.format('%d %d %d', pace, cut, good), 'PX', PACE_TTL)
  return pace
end

-- What a pace leaves of a limit: of connections one is for urgent mail as before, where two are left.
local function site_at_pace(ask, pace)
  local most, plain = math.floor(ask[1] * pace / 1000), math.floor(ask[2] * pace / 1000)
  if pace < 1000 and ask[1] > 0 then
    most = math.max(1, most)
    plain = math.max(1, math.min(plain, most - (ask[2] < ask[1] and 1 or 0)))
    ask[1], ask[2] = most, plain
  end
  ask[11] = ask[11] * 1000 / pace
end

local function site_numbers(text)
  local numbers = {}
  for number in string.gmatch(text, '%d+') do
    numbers[#numbers + 1] = tonumber(number)
  end
  return numbers
end

-- kilat_sites(worker, lease ms, n times: site, numbers of site_settle, then messages, interval in us,
-- burst, 1 when less was asked for, messages taken)
--     -> { 1 when its lease was live, n times "<connections> <plain> <1: waits>
--     <messages> <ms to wait> <pace>", any number of news }
-- Renews the lease.
local function sites(keys, args)
  local tag, now, worker, lease = tag_of(keys), time_ms(), args[1], tonumber(args[2])
  local late = redis.call('ZRANGEBYSCORE', tag .. 'sw', '-inf', now, 'LIMIT', 0, 8)
  for i = 1, #late do
    site_leave(tag, late[i])
  end
  local reply = { redis.call('ZADD', tag .. 'sw', now + lease, worker) == 0 and 1 or 0 }
  for i = 3, #args, 2 do
    local ask = site_numbers(args[i + 1])
    local pace = site_pace(tag, args[i], ask, now)
    site_at_pace(ask, pace)
    reply[#reply + 1] = site_settle(tag, args[i], worker, ask, now, now + lease - FRESH)
        .. ' ' .. site_tokens(tag, args[i], ask, now) .. ' ' .. pace
  end
  local news = redis.call('SMEMBERS', tag .. 'sn:' .. worker)
  redis.call('DEL', tag .. 'sn:' .. worker)
  for i = 1, #news do
    reply[#reply + 1] = news[i]
  end
  return reply
end

register('kilat_sites', sites, 'allow-oom')
