-- Since when (µs, by the server's clock) a task could run that waits in the due index; nil: not known. For statistics. Needs record, due_time.
local function ready_since(id, rec, now)
  local due = tonumber(redis.call('ZSCORE', DUE, id) or '-1')
  if due > 0 then return math.min(now, now + due - due_time(now)) end
  local runs = rec[RUNS] or {}
  return due == 0 and #runs > 0 and runs[#runs][3] or nil -- at once: since its last run ended
end
