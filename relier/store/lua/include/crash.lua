-- What one crash of its owner means for a task. Used by bury and by a claim that takes over; needs letters and idempotency.

-- R9: after its second crash a task is a suspect and runs alone. The first crash is forgiven, because most tasks that
-- died with a worker are innocent and their next run shall not wait; with max_resurrections = 1 there is no second chance to give.
local function is_suspect(rec)
  return rec[CRASHES] >= math.max(1, math.min(2, rec[MAX_CRASHES]))
end

-- Whoever ran in it is counted, beside a suspect too: uncounted, fresh poison would run once more with every suspect it runs beside.
-- Only its last crash makes a dead letter, and before that one a task runs alone. Returns true when the task ended as one.
local function crashed(id, rec, now)
  local owner = rec[OWNER]
  remember_run(rec, owner, now, 'crashed')
  count(rec, 'crashes')
  rec[CRASHES] = rec[CRASHES] + 1
  rec[SUSPECT] = is_suspect(rec)
  event(now, 'crashed', id, 'worker', owner, 'fence', int(rec[FENCE]))
  if rec[CRASHES] > rec[MAX_CRASHES] and not asked_to_end(rec) then
    disown(id, rec)
    rec[STATE], rec[FENCE], rec[STICKY] = 'd', next_fence(now, rec[FENCE]), true
    to_dlq(id, rec, now, 'max_resurrections_exceeded', 'Its worker died ' .. rec[CRASHES] .. ' times.')
    leave_key(id, rec, now)
    return true
  end
  owner_died(id, rec, now)
  return false
end
