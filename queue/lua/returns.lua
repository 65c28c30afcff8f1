-- SPDX-License-Identifier: Apache-2.0
--
-- returns - who got mail from a return path of ours: kilat_trace and kilat_traced. Follows kilat.lua
-- in the library.
--
--     o:<queue id>.<recipient>    string, TTL: what queue/trace.h says of it
--
-- Written when a delivery has succeeded, in the transaction that ends it; a bounce that comes back asks
-- for it by the address that it is sent to.

-- kilat_trace(worker, n times: delivery id, "<ms>\t<queue id>.<recipient>\t<value>") -> {}
local function trace(keys, args)
  local tag = tag_of(keys)
  for i = 2, #args, 2 do
    local kept, name, value = string.match(args[i + 1], '^(%d+)\t([^\t]*)\t(.*)$')
    if kept then
      redis.call('SET', tag .. 'o:' .. name, value, 'PX', kept)
    end
  end
  return {}
end

-- kilat_traced(queue id, recipient) -> value | 1: the message is not done with, ask again | nil
local function traced(keys, args)
  local tag = tag_of(keys)
  return redis.call('GET', tag .. 'o:' .. args[1] .. '.' .. args[2])
      or (redis.call('EXISTS', tag .. 'b:' .. args[1]) == 1 and 1)
end

register('kilat_traced', traced, 'no-writes')
register('kilat_trace', trace, 'allow-oom')
