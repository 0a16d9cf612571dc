-- Rows of one table in the order of their keys. Keys: order, rows. Arguments: from, to, REV or '', limit (-1: none).
local from, to, direction, limit = take(), take(), take(), take()
local keys
if direction == 'REV' then
  keys = redis.call('ZRANGE', KEYS[1], to, from, 'BYLEX', 'REV', 'LIMIT', 0, limit)
else
  keys = redis.call('ZRANGE', KEYS[1], from, to, 'BYLEX', 'LIMIT', 0, limit)
end
local values = {}
for i, key in ipairs(keys) do
  values[i] = redis.call('HGET', KEYS[2], key) or ''
end
return {keys, values}
