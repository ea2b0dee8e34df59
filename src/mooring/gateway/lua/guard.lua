-- Judges the raw bytes of a request before anything is matched: what two programs could read in two ways is refused.
local find = ngx.re.find
local byte, lower, sub = string.byte, string.lower, string.sub

local _M = {}

-- Encoded slash, backslash, dot, percent-encoded control characters, broken escapes; dot segments, also those with a
-- path parameter (`..;` is `..` to a Java server); backslashes and raw control characters.
local AMBIGUOUS = [=[%(?:2[fFeE]|5[cC]|[01][0-9a-fA-F]|7[fF]|(?![0-9a-fA-F]{2}))|/\.\.?(?:[/;]|$)|[\x00-\x20\x7f\\]]=]

-- The path of the request's raw target and its query with the question mark ("" when there is none), or nil.
function _M.target(request_uri)
    local mark = string.find(request_uri, "?", 1, true)
    local path = mark and sub(request_uri, 1, mark - 1) or request_uri
    local from, _, err = find(path, AMBIGUOUS, "jo")
    if byte(path, 1) ~= 47 or from or err then
        return nil
    end
    return path, mark and sub(request_uri, mark) or ""
end

-- The port text of the Host header ("" when it has none), or nil when the header is not exactly `host[:port]` for the
-- host that nginx routes by: an absolute-form target may name another.
function _M.port(http_host, host)
    if not http_host or not host or host == "" then
        return nil
    end
    local n = #host
    if #http_host == n then
        return (http_host == host or lower(http_host) == host) and "" or nil
    end
    local prefix = sub(http_host, 1, n)
    if prefix ~= host and lower(prefix) ~= host then
        return nil
    end
    local port = sub(http_host, n + 1)
    return find(port, [[\A:[0-9]{1,5}\z]], "jo") and port or nil
end

return _M
