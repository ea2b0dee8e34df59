-- SHA-256 and HMAC-SHA256 by the libcrypto that nginx is linked with: Lua's own bindings have neither.
local ffi = require("ffi")
require("ngx.base64")
local C = ffi.C

ffi.cdef([[
typedef struct { unsigned long long opaque[16]; } mooring_sha256;
int SHA256_Init(mooring_sha256 *c);
int SHA256_Update(mooring_sha256 *c, const void *data, size_t len);
int SHA256_Final(unsigned char *md, mooring_sha256 *c);
unsigned char *SHA256(const unsigned char *d, size_t n, unsigned char *md);
int CRYPTO_memcmp(const void *a, const void *b, size_t len);
]])

local SIZE, BLOCK, TEXT_BYTES = 32, 64, 43
local State = ffi.typeof("mooring_sha256")
local STATE_BYTES = ffi.sizeof(State)
local working = State()
local buffer = ffi.new("unsigned char[32]")

local expected = ffi.new("unsigned char[?]", TEXT_BYTES + 1)
local encoded, plain = ffi.new("ngx_str_t[1]"), ffi.new("ngx_str_t[1]")

-- A signature as text has that many characters.
local _M = { TEXT_BYTES = TEXT_BYTES }

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

-- What `signed` needs of a key (RFC 2104, 4): both hashes after their first block, so that a signature allocates
-- nothing and costs two blocks less.
function _M.key(secret)
    local key = #secret > BLOCK and digest(secret) or secret
    return { inner = started(key, 0x36), outer = started(key, 0x5c) }
end

-- Whether `signature` is that of these bytes, in base64url.
function _M.signed(key, bytes, length, signature)
    ffi.copy(working, key.inner, STATE_BYTES)
    C.SHA256_Update(working, bytes, length)
    C.SHA256_Final(buffer, working)
    ffi.copy(working, key.outer, STATE_BYTES)
    C.SHA256_Update(working, buffer, SIZE)
    C.SHA256_Final(buffer, working)
    plain[0].data, plain[0].len = buffer, SIZE
    encoded[0].data = expected
    C.ngx_encode_base64url(encoded, plain)
    -- Its duration does not tell where the difference is.
    return C.CRYPTO_memcmp(signature, expected, TEXT_BYTES) == 0
end

function _M.sha256_hex(text)
    C.SHA256(text, #text, buffer)
    local hex = {}
    for i = 0, SIZE - 1 do
        hex[i + 1] = string.format("%02x", buffer[i])
    end
    return table.concat(hex)
end

return _M
