-- Sends datagrams to a unix socket without waiting. nginx's own sockets would write a line into the error log for
-- every try while nobody is there.
local bit = require("bit")
local ffi = require("ffi")
local C = ffi.C

ffi.cdef([[
typedef struct { uint16_t family; char path[108]; } mooring_unix;
int socket(int family, int kind, int protocol);
ssize_t sendto(int fd, const void *data, size_t size, int flags, const mooring_unix *to, unsigned int to_size);
int close(int fd);
]])

local UNIX, DATAGRAM, WITHOUT_WAITING, NOT_INHERITED = 1, 2, 0x800, 0x80000
local address = ffi.new("mooring_unix")
local LONGEST = ffi.sizeof(address.path) - 1

local _M = {}

-- Whether `text` is with whoever listens at `path`.
local function sent(fd, path, text)
    address.family = UNIX
    ffi.fill(address.path, LONGEST + 1)
    ffi.copy(address.path, path, #path)
    return C.sendto(fd, text, #text, 0, address, ffi.sizeof(address)) == #text
end

-- Sends `encode` of each item in order until one is not taken; how many were.
function _M.send(path, items, encode)
    local fd = #path <= LONGEST and C.socket(UNIX, bit.bor(DATAGRAM, WITHOUT_WAITING, NOT_INHERITED), 0) or -1
    if fd < 0 then
        return 0
    end
    local count = 0
    while count < #items and sent(fd, path, encode(items[count + 1])) do
        count = count + 1
    end
    C.close(fd)
    return count
end

return _M
