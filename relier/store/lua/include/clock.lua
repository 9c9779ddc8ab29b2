-- The server's clock in whole microseconds. ARGV[1] replaces it in tests; '' means "ask the server".
local function now_us()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- Lua's tostring and .. round microseconds; this does not.
local function int(n) return string.format('%.0f', n) end
