-- Lots: where parked tasks wait for somebody who can run them, one lot per queue, actor and payload version.
--   lots  set of `queue LF actor`, from the second version on `queue LF actor LF version`
--   lot:<its name>  zset task id -> since when it waits for this reason (µs; see include/due_time.lua)
local function lots() return string.sub(REC, 1, -4) .. 'lots' end
local function lot_key(lot) return string.sub(REC, 1, -4) .. 'lot:' .. lot end

local function lot_of(rec)
  local version = rec[PAYLOAD_VERSION]
  return rec[QUEUE] .. '\n' .. rec[ACTOR] .. (version > 1 and '\n' .. int(version) or '')
end

local function leave_lot(id, rec)
  local lot = lot_of(rec)
  if redis.call('ZREM', lot_key(lot), id) == 1 and redis.call('EXISTS', lot_key(lot)) == 0 then
    redis.call('SREM', lots(), lot)
  end
end
