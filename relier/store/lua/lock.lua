#!lua flags=allow-oom
-- One idempotency lock, held by code rather than by a task: who may do a piece of work, and what came of it.
--
-- KEYS  1 lock:<key>   string: {format, 'o', token, owner, fence} or {format, 'c', token, result}, packed. It always expires
-- ARGV  1 now or ''   2 'acquire', 'renew', 'commit', 'release' or 'purge'   3 token of this acquisition   4 owner: the task, else the token
--          ('purge': '1' if a completion is to be forgotten as well)   5 fence of the task's run, else 0   6 how long (ms) it is held, or the result counts   7 the result (commit only)
-- Reply {'granted'} · {'completed', result} · {'held', ms until it lapses} · {'stale'} (acquire), {'freed'} · {'kept'} (purge),
--       {'ok'} · {'stale'} (the rest)
--
-- A later run of the same task takes over at once: its fence is higher, and the earlier run is over or can change nothing any more.
-- Everything but acquiring is for the token that holds it, so who was overtaken neither commits nor releases. Repeated with
-- one token every call answers the same. A crash of the holder: the lock lapses. A crash after the commit: the result is there.
-- include clock
local LOCK_FORMAT = 1
local action, token, owner, fence, ms = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local packed = redis.call('GET', KEYS[1])
local lock = packed and cmsgpack.unpack(packed)

local function put(...) redis.call('SET', KEYS[1], cmsgpack.pack({ LOCK_FORMAT, ... }), 'PX', ms) end

if action == 'purge' then
  if not lock or (lock[2] == 'c' and owner ~= '1') then return { 'kept' } end
  redis.call('DEL', KEYS[1])
  return { 'freed' }
elseif lock and lock[1] > LOCK_FORMAT then
  return { 'held', redis.call('PTTL', KEYS[1]) }
elseif action == 'acquire' then
  if lock and lock[2] == 'c' then return { 'completed', lock[4] } end
  if lock and lock[3] ~= token then
    if lock[4] ~= owner or lock[5] == fence then return { 'held', redis.call('PTTL', KEYS[1]) } end
    if lock[5] > fence then return { 'stale' } end
  end
  put('o', token, owner, fence)
  return { 'granted' }
elseif not lock or lock[3] ~= token then
  return { 'stale' }
elseif action == 'commit' then
  if lock[2] == 'o' then put('c', token, ARGV[7]) end
elseif lock[2] == 'o' then
  if action == 'renew' then redis.call('PEXPIRE', KEYS[1], ms) else redis.call('DEL', KEYS[1]) end
end
return { 'ok' }
