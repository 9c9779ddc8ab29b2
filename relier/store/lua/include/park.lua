-- Parking: a task that no living worker can run keeps a place in the due index, but far away, so that it costs no sweep anything. Its id
-- is also in a lot, which lets it out as soon as somebody comes; see lots. A lot only hints: who is let out is checked.

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
  redis.call('SADD', lots(), lot)
  if rec[STATE] == 's' and rec[REASON] ~= reason then
    rec[REASON] = reason
    count(rec, 'parked')
    redis.call('ZADD', lot_key(lot), int(at), id)
  else
    redis.call('ZADD', lot_key(lot), 'NX', int(at), id)
  end
  return tonumber(redis.call('ZSCORE', lot_key(lot), id))
end
