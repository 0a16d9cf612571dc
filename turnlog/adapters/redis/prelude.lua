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

-- Calls a command with some hundred arguments at a time, an even number.
local function in_parts(command, key, list)
  for i = 1, #list, 200 do
    redis.call(command, key, unpack(list, i, math.min(i + 199, #list)))
  end
end

-- Arguments: how many tables; of each its two keys, how many rows are put and how many deleted, and those rows.
local function write_tables()
  for _ = 1, tonumber(take()) do
    local rows, order = take(), take()
    local puts, deletes = tonumber(take()), tonumber(take())
    local added, set, gone = {}, {}, {}
    for _ = 1, puts do
      local key, value = take(), take()
      added[#added + 1] = 0
      added[#added + 1] = key
      if value ~= '' then
        set[#set + 1] = key
        set[#set + 1] = value
      end
    end
    for i = 1, deletes do
      gone[i] = take()
    end
    in_parts('ZADD', order, added)
    in_parts('HSET', rows, set)
    in_parts('ZREM', order, gone)
    in_parts('HDEL', rows, gone)
  end
end
