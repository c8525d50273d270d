//! What must happen at once or not at all, as scripts that Redis runs (`EVAL`). Each is one round trip.
//!
//! A run is open as long as its manifest stands: no script makes a key of a run that has none, but the
//! first lease of a manager. Keys of a closed run that had no time left would stay for ever, and so would
//! those of a run whose manager was killed and never resumed: each key is given a month.
//!
//! Keys are given as arguments like others, not as `KEYS`: to name a key there is to ask for the right
//! to write it, and workers only read some.

/// Arguments: manifest, log, lease or `""`; the epoch that it must be held with; most entries, or 0; the
/// entry. Returns 1 when it was appended, 0 when it was fenced off, -1 when the run is gone.
pub(super) const APPEND: &str = "\
local manifest, log, lease, epoch, most, entry = unpack(ARGV)
if redis.call('EXISTS', manifest) == 0 then return -1 end
if lease ~= '' and redis.call('GET', lease) ~= epoch then return 0 end
if most ~= '0' then
  redis.call('XADD', log, 'MAXLEN', '~', most, '*', 'e', entry)
else
  redis.call('XADD', log, '*', 'e', entry)
end
redis.call('PEXPIRE', log, 2592000000)
return 1";

/// Arguments: manifest, lease, epochs, commands, roll; milliseconds; the highest epoch known to whoever
/// asks; the manifest that stands from now on, or `""`. Returns (1, epoch) when it was taken, (0, epoch)
/// when it is held, (-1, 0) when the run is gone.
///
/// A Redis that came back from its file may have forgotten the last epochs; who had them has not.
pub(super) const TAKE: &str = "\
local manifest, lease, epochs, commands, roll, ttl, known, opens = unpack(ARGV)
if opens == '' and redis.call('EXISTS', manifest) == 0 then return {-1, 0} end
local held = redis.call('GET', lease)
if held then return {0, tonumber(held)} end
local epoch = redis.call('INCR', epochs)
if epoch <= tonumber(known) then
  epoch = tonumber(known) + 1
  redis.call('SET', epochs, string.format('%.0f', epoch))
end
redis.call('SET', lease, string.format('%.0f', epoch), 'PX', ttl)
if opens ~= '' then
  redis.call('SET', manifest, opens)
  for _, key in ipairs({manifest, epochs, commands, roll}) do redis.call('EXPIRE', key, 2592000) end
end
return {1, epoch}";

/// Arguments: lease; its epoch; milliseconds. Returns whether it was held.
pub(super) const RENEW: &str = "\
local lease, epoch, ttl = unpack(ARGV)
if redis.call('GET', lease) ~= epoch then return 0 end
return redis.call('PEXPIRE', lease, ttl)";

/// Arguments: lease; its epoch. Returns whether it was held.
pub(super) const RELEASE: &str = "\
local lease, epoch = unpack(ARGV)
if redis.call('GET', lease) ~= epoch then return 0 end
return redis.call('DEL', lease)";

/// Arguments: leases. Returns (epoch, milliseconds) of each: epoch 0 where nobody holds it, -1 ms where
/// it lasts for ever.
pub(super) const HOLDERS: &str = "\
local all = {}
for i, lease in ipairs(ARGV) do
  local epoch = redis.call('GET', lease)
  all[2 * i - 1] = epoch and tonumber(epoch) or 0
  all[2 * i] = epoch and redis.call('PTTL', lease) or 0
end
return all";

/// Arguments: log. Returns the id of its last entry, be it trimmed or not.
pub(super) const END_OF: &str = "\
if redis.call('EXISTS', ARGV[1]) == 0 then return '0-0' end
local info = redis.call('XINFO', 'STREAM', ARGV[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then return info[i + 1] end
end
return '0-0'";

/// Arguments: lease; the epoch that it must be held with; logs, each followed by the id of the first entry
/// that stays. Returns whether it was held.
pub(super) const TRIM: &str = "\
if redis.call('GET', ARGV[1]) ~= ARGV[2] then return 0 end
for i = 3, #ARGV, 2 do redis.call('XTRIM', ARGV[i], 'MINID', ARGV[i + 1]) end
return 1";

/// Arguments: manifest, epochs, commands, roll; seconds; what the key of a worker's reports begins
/// with. Ends the run: the manifest goes, the rest has that long. Leases run out by themselves.
pub(super) const CLOSE: &str = "\
local manifest, epochs, commands, roll, left, reports = unpack(ARGV)
redis.call('DEL', manifest)
for _, entry in ipairs(redis.call('XRANGE', roll, '-', '+')) do
  local ok, member = pcall(cjson.decode, entry[2][2])
  if ok and type(member) == 'table' then
    redis.call('EXPIRE', reports .. tostring(member.name), left)
  end
end
redis.call('EXPIRE', epochs, left)
redis.call('EXPIRE', commands, left)
redis.call('EXPIRE', roll, left)
return 1";
