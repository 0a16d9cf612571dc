-- What the scripts share: taking arguments one after the other, the server's time, and writing what views hold.
local at = 0
local function take()
  at = at + 1
  return ARGV[at]
end

local time
local function now_ms()
  if not time then
    local told = redis.call('TIME')
    time = told[1] * 1000 + math.floor(told[2] / 1000)
  end
  return time
end

local function number(n)
  return string.format('%.0f', n) -- Lua would write a large one with an exponent
end

-- Calls a function with the id and the fields of every entry of a stream.
local function each_entry(key, apply)
  local from = '-'
  while true do
    local page = redis.call('XRANGE', key, from, '+', 'COUNT', 500)
    for _, entry in ipairs(page) do
      apply(entry[1], entry[2])
    end
    if #page < 500 then
      return
    end
    from = '(' .. page[#page][1]
  end
end

-- Arguments: how many tables; of each its two keys, how many rows are put and how many deleted, and those rows.
local function write_tables()
  for _ = 1, tonumber(take()) do
    local rows, order = take(), take()
    local puts, deletes = tonumber(take()), tonumber(take())
    for _ = 1, puts do
      local key, value = take(), take()
      redis.call('ZADD', order, 0, key)
      if value ~= '' then
        redis.call('HSET', rows, key, value)
      end
    end
    for _ = 1, deletes do
      local key = take()
      redis.call('ZREM', order, key)
      redis.call('HDEL', rows, key)
    end
  end
end
