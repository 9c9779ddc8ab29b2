-- The server's clock in whole microseconds, the same throughout the script. ARGV[1] replaces it in tests; '' means "ask the server".
local clock
local function now_us()
  if clock then return clock end
  if ARGV[1] ~= '' then
    clock = tonumber(ARGV[1])
  else
    local t = redis.call('TIME')
    clock = tonumber(t[1]) * 1000000 + tonumber(t[2])
  end
  return clock
end

-- Lua's tostring and .. round microseconds; this does not.
local function int(n) return string.format('%.0f', n) end
