-- Writes what views hold, if the writer still has its turn. Key: the lease. Arguments: the lease; tables.
if redis.call('GET', KEYS[1]) ~= take() then
  return 0
end
write_tables()
return 1
