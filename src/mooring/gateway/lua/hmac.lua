-- SHA-256 and HMAC-SHA256 by the libcrypto that nginx is linked with: Lua's own bindings have neither.
local ffi = require("ffi")
local C = ffi.C

ffi.cdef([[
typedef struct { unsigned long long opaque[32]; } mooring_sha256;
int SHA256_Init(mooring_sha256 *c);
int SHA256_Update(mooring_sha256 *c, const void *data, size_t len);
int SHA256_Final(unsigned char *md, mooring_sha256 *c);
unsigned char *SHA256(const unsigned char *d, size_t n, unsigned char *md);
]])

local SIZE, BLOCK = 32, 64
local State = ffi.typeof("mooring_sha256")
local STATE_BYTES = ffi.sizeof(State)
local working = State()
local buffer = ffi.new("unsigned char[32]")

local _M = {}

local function digest(text)
    C.SHA256(text, #text, buffer)
    return ffi.string(buffer, SIZE)
end

local function started(key, pad)
    local block = ffi.new("unsigned char[64]")
    for i = 0, BLOCK - 1 do
        block[i] = bit.bxor(i < #key and string.byte(key, i + 1) or 0, pad)
    end
    local state = State()
    C.SHA256_Init(state)
    C.SHA256_Update(state, block, BLOCK)
    return state
end

-- What `hmac_sha256` needs of a key (RFC 2104, 4): both hashes after their first block, so that a signature allocates
-- nothing and costs two blocks less.
function _M.key(secret)
    local key = #secret > BLOCK and digest(secret) or secret
    return { inner = started(key, 0x36), outer = started(key, 0x5c) }
end

function _M.hmac_sha256(key, text)
    ffi.copy(working, key.inner, STATE_BYTES)
    C.SHA256_Update(working, text, #text)
    C.SHA256_Final(buffer, working)
    ffi.copy(working, key.outer, STATE_BYTES)
    C.SHA256_Update(working, buffer, SIZE)
    C.SHA256_Final(buffer, working)
    return ffi.string(buffer, SIZE)
end

function _M.sha256_hex(text)
    C.SHA256(text, #text, buffer)
    local hex = {}
    for i = 0, SIZE - 1 do
        hex[i + 1] = string.format("%02x", buffer[i])
    end
    return table.concat(hex)
end

-- Compares without telling by its duration where the difference is.
function _M.equal(a, b)
    if #a ~= #b then
        return false
    end
    local difference = 0
    for i = 1, #a do
        difference = bit.bor(difference, bit.bxor(string.byte(a, i), string.byte(b, i)))
    end
    return difference == 0
end

return _M
