-- Kept results: a string of its own for each task, in the task's shard, that expires by itself. Its first byte says what it is:
--   v  the value, encoded, follows        l  the value was too large: its size in bytes follows
--   u  the value could not be encoded: why follows
--   @  the same as the result of another task of this shard, whose id follows: so a thousand duplicates keep one value
-- It is written in the step that ends the task, and by nobody else: a task that has one has completed.
local function result_key(id) return string.sub(REC, 1, -4) .. 'res:' .. id end

-- Keeps a result for `ttl` milliseconds. `kept` begins with one of the bytes above.
local function keep_result(id, kept, ttl)
  redis.call('SET', result_key(id), kept, 'PX', int(ttl))
end

-- Lets a task have the result of another task of this shard, for as long as if it were its own; not of one that refers itself.
local function refer_result(id, to, ttl)
  redis.call('SET', result_key(id), '@' .. to, 'PX', int(ttl))
  redis.call('PEXPIRE', result_key(to), int(ttl), 'GT')
end

-- Whether a task has a result, though it may refer to one that has expired.
local function has_result(id) return redis.call('EXISTS', result_key(id)) == 1 end

-- Returns what is kept of a task's result: v, l or u with what follows; '' when nothing is, or no longer.
local function read_result(id)
  local kept = redis.call('GET', result_key(id)) or ''
  if string.sub(kept, 1, 1) ~= '@' then return kept end
  return redis.call('GET', result_key(string.sub(kept, 2))) or ''
end

-- Returns a task's result, encoded; false when it completed without one that could be kept; nil when nothing is kept.
local function kept_result(id)
  local kept = read_result(id)
  if kept == '' then return nil end
  return string.sub(kept, 1, 1) == 'v' and string.sub(kept, 2)
end
