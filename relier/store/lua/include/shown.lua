-- When a record is due, on the server's clock, for people; '' when it is not in the due index.
local function shown_due(id, rec, now)
  local at = tonumber(redis.call('ZSCORE', DUE, id) or '-1')
  if at < 0 then return '' end
  if at > 0 then return int(at - tonumber(redis.call('HGET', META, 'skew') or '0')) end
  local runs = rec[RUNS] or {}
  return int(math.min(now, #runs > 0 and runs[#runs][3] or rec[GRANTED])) -- at once: since it was put back
end
