-- The certificate of a handshake, from the dictionary: a changed one is in use at the next handshake.
local ssl = require("ngx.ssl")

local dict = ngx.shared.certificates

local _M = {}

local text, chain, key

-- Parsing costs more than a handshake, so it is done once for as long as the text is the same.
local function parsed()
    local pem = dict:get("certificate")
    -- Another worker may just be putting back the one before: until then this one's own copy is shown.
    if pem and pem ~= text then
        local new_chain, chain_error = ssl.parse_pem_cert(pem)
        local new_key, key_error = ssl.parse_pem_priv_key(pem)
        if not new_chain or not new_key then
            ngx.log(ngx.ERR, "certificate: ", chain_error or key_error)
            return chain, key
        end
        text, chain, key = pem, new_chain, new_key
    end
    return chain, key
end

function _M.choose()
    local certificate, private = parsed()
    if not certificate then
        return
    end
    ssl.clear_certs()
    local ok, err = ssl.set_cert(certificate)
    if ok then
        ok, err = ssl.set_priv_key(private)
    end
    if not ok then
        ngx.log(ngx.ERR, "certificate: ", err)
        return ngx.exit(ngx.ERROR)
    end
end

return _M
