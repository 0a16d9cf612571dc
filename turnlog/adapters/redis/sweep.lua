-- Ends a session whose time is over: log, keys, snapshot, names and what views hold of it go together. What is left is an
-- entry of the order which says that it was deleted, for those who follow the log.
-- Keys: as of append.lua, of one batch. Arguments: lease ('': none is needed); stream; tables of views.
local lease, stream = take(), take()
if lease ~= '' and redis.call('GET', KEYS[5]) ~= lease then
  return 'lease'
end
local deadline = redis.call('ZSCORE', KEYS[4], stream)
if not deadline or tonumber(deadline) > now_ms() then
  return 'alive'
end
local by = redis.call('HGET', KEYS[9], stream)
if by then
  return 'reserved ' .. by .. ' ' .. stream
end
if redis.call('ZCOUNT', KEYS[13], now_ms(), '+inf') > 0 then
  return 'busy'
end
local last = '0'
each_entry(KEYS[10], function(id, fields)
  redis.call('XDEL', KEYS[2], fields[2] .. '-1')
  last = id
end)
local version = tonumber(string.match(last, '^%d+')) + 1
local position = redis.call('INCR', KEYS[1])
redis.call('XADD', KEYS[2], number(position) .. '-1',
  'k', stream, 'v', number(version), 't', 'SessionDeleted.v1', 'x', number(now_ms()))
redis.call('DEL', KEYS[10], KEYS[11], KEYS[12])
redis.call('ZREM', KEYS[3], stream)
redis.call('ZREM', KEYS[4], stream)
redis.call('HDEL', KEYS[7], stream)
redis.call('INCR', KEYS[8])
write_tables()
return position
