-- SPDX-License-Identifier: Apache-2.0
--
-- auth - failed logins, counted for all nodes together (P-117, P-155). Asked by io/authenticator.c, where
-- the limits are explained; KEYS[1] is {cfg}. No queue moves: the reference model knows nothing of it.
--
--     {cfg}af:<tally>     string, PX: failures since the first of them, until the window is over
--     {cfg}ak:<pair>      string, PX: this user has logged in from this address
--
-- A tally is a digest in hex: of a user at an address (the pair), of an address, of a user.

local function failures(tag, tally)
  return tonumber(redis.call('GET', tag .. 'af:' .. tally) or 0)
end

-- kilat_auth_check(pair max, address max, user max, pair, address, user)
--     -> 0 refused | 1 welcome | 2 welcome, and known here
-- Where a user is known, failures elsewhere do not count against him.
local function auth_check(keys, args)
  local tag = tag_of(keys)
  local is_known = redis.call('EXISTS', tag .. 'ak:' .. args[4]) == 1
  if failures(tag, args[4]) >= tonumber(args[1]) or failures(tag, args[5]) >= tonumber(args[2]) then
    return 0
  end
  if not is_known and failures(tag, args[6]) >= tonumber(args[3]) then
    return 0
  end
  return is_known and 2 or 1
end

-- kilat_auth_fail(window ms, pair, address, user) -> failures of the pair
local function auth_fail(keys, args)
  local tag = tag_of(keys)
  for i = 2, 4 do
    local key = tag .. 'af:' .. args[i]
    if redis.call('INCR', key) == 1 then
      redis.call('PEXPIRE', key, args[1])
    end
  end
  return failures(tag, args[2])
end

-- kilat_auth_good(ms, pair) -> 1
local function auth_good(keys, args)
  redis.call('SET', tag_of(keys) .. 'ak:' .. args[2], '1', 'PX', args[1])
  return 1
end

register('kilat_auth_check', auth_check, 'no-writes')
register('kilat_auth_fail', auth_fail, 'allow-oom')
register('kilat_auth_good', auth_good, 'allow-oom')
