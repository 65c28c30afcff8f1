-- SPDX-License-Identifier: Apache-2.0
--
-- warm - how many recipients were sent to today from sources that are being warmed up, by all nodes
-- together. Asked by io/relay_sources.c before mail leaves from one; KEYS[1] is {cfg}.
--
--     {cfg}wu:<source>:<day>    string, PX: recipients granted on that day (days since 1970, UTC)

local WARM_TTL = 2 * 86400000

-- kilat_warm(day, n times: source, recipients that day may have, recipients wanted)
--     -> n times the recipients granted, 0 to what was wanted
local function warm(keys, args)
  local tag, granted = tag_of(keys), {}
  for i = 2, #args, 3 do
    local key = tag .. 'wu:' .. args[i] .. ':' .. args[1]
    local used = tonumber(redis.call('GET', key) or 0)
    local count = math.max(0, math.min(tonumber(args[i + 2]), tonumber(args[i + 1]) - used))
    if count > 0 then
      redis.call('SET', key, string.format('%d', used + count), 'PX', WARM_TTL)
    end
    granted[#granted + 1] = count
  end
  return granted
end

register('kilat_warm', warm, 'allow-oom')
