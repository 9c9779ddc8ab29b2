-- Parking: a task that no living worker can run keeps a place in the due index, but far away, so that it costs no sweep anything. Its id
-- is also in a lot, one per queue, actor and payload version, which lets it out as soon as somebody comes. A lot only hints: who is let out is checked.
--   lots  set of `queue LF actor`, from the second version on `queue LF actor LF version`
--   lot:<its name>  zset task id -> since when it waits for this reason (µs; see include/due_time.lua)
local LOTS = string.sub(REC, 1, -4) .. 'lots'
local function lot_key(lot) return string.sub(REC, 1, -4) .. 'lot:' .. lot end

local function lot_of(rec)
  local version = rec[PAYLOAD_VERSION]
  return rec[QUEUE] .. '\n' .. rec[ACTOR] .. (version > 1 and '\n' .. int(version) or '')
end

-- Why a task is parked, and the reason of the dead letter that it becomes when that lasts too long; '' for never. `paused` and `parked`
-- are holds: see fleet_hold.lua.
local PARKED = { ['no consumer'] = '', ['unknown actor'] = 'ActorNotFound', ['newer version'] = 'SchemaMigrationError',
                 ['paused'] = '', ['parked'] = '' }
local function is_parked_for(reason) return PARKED[reason] ~= nil end

-- Waiting for publication: `waiting`, or the hooks of an ended task whose owner is gone.
local function awaits_publication(rec) return rec[STATE] == 's' or (rec[STATE] == 'h' and rec[OWNER] == '') end

-- Returns since when the task waits for this reason. An ended task keeps the reason of its end.
local function enter_lot(id, rec, reason, at)
  local lot = lot_of(rec)
  redis.call('SADD', LOTS, lot)
  if rec[STATE] == 's' and rec[REASON] ~= reason then
    rec[REASON] = reason
    count('parked')
    redis.call('ZADD', lot_key(lot), int(at), id)
  else
    redis.call('ZADD', lot_key(lot), 'NX', int(at), id)
  end
  return tonumber(redis.call('ZSCORE', lot_key(lot), id))
end

local function leave_lot(id, rec)
  local lot = lot_of(rec)
  redis.call('ZREM', lot_key(lot), id)
  if redis.call('EXISTS', lot_key(lot)) == 0 then redis.call('SREM', LOTS, lot) end
end
