-- Puts a message back to the head of its queue, under a new id: whoever held it under the old one, a thread of the same process or
-- a zombie, can neither acknowledge nor return the next delivery.
local function put_back(queue, msgs, id)
  local message = redis.call('HGET', msgs, id)
  if not message then return 0 end
  local base, count = string.match(id, '^(.*)%+(%d+)$')
  local fresh = (base or id) .. '+' .. string.format('%d', (tonumber(count) or 0) + 1)
  redis.call('HDEL', msgs, id)
  redis.call('HSET', msgs, fresh, message)
  redis.call('LPUSH', queue, fresh)
  return 1
end
