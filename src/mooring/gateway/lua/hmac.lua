-- SHA-256 and HMAC-SHA256 by the libcrypto that nginx is linked with: Lua's own bindings have neither.
local ffi = require("ffi")
local C = ffi.C

ffi.cdef([[
const void *EVP_sha256(void);
unsigned char *HMAC(const void *evp, const void *key, int key_len, const unsigned char *d, size_t n,
                    unsigned char *md, unsigned int *md_len);
unsigned char *SHA256(const unsigned char *d, size_t n, unsigned char *md);
]])

local buffer = ffi.new("unsigned char[64]")
local length = ffi.new("unsigned int[1]")

local _M = {}

function _M.hmac_sha256(key, text)
    C.HMAC(C.EVP_sha256(), key, #key, text, #text, buffer, length)
    return ffi.string(buffer, 32)
end

function _M.sha256_hex(text)
    C.SHA256(text, #text, buffer)
    local hex = {}
    for i = 0, 31 do
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
