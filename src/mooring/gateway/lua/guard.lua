-- Judges the raw bytes of a request before anything is matched: what two programs could read in two ways is refused.
local matches = ngx.re.find
local byte, find, lower, sub = string.byte, string.find, string.lower, string.sub

local _M = {}

-- Encoded slash, backslash, dot, percent-encoded control characters, broken escapes; dot segments, also those with a
-- path parameter (`..;` is `..` to a Java server); backslashes and raw control characters.
local AMBIGUOUS = [=[%(?:2[fFeE]|5[cC]|[01][0-9a-fA-F]|7[fF]|(?![0-9a-fA-F]{2}))|/\.\.?(?:[/;]|$)|[\x00-\x20\x7f\\]]=]

-- The path of the request's raw target, or nil.
function _M.path(request_uri)
    local mark = find(request_uri, "?", 1, true)
    local path = mark and sub(request_uri, 1, mark - 1) or request_uri
    local from, _, err = matches(path, AMBIGUOUS, "jo")
    if byte(path, 1) == 47 and not from and not err then
        return path
    end
end

-- Its query with the question mark, "" when there is none.
function _M.query(request_uri)
    local mark = find(request_uri, "?", 1, true)
    return mark and sub(request_uri, mark) or ""
end

-- Most requests name the port that the one before named.
local good_port = ""

local function is_port(text)
    if text ~= good_port and matches(text, [[\A:[0-9]{1,5}\z]], "jo") then
        good_port = text
    end
    return text == good_port
end

-- No name is longer (RFC 1035), and each dot of one is a look-up: 15,000 would hold up everybody else for seconds.
local LONGEST_HOST = 253

-- The Host header in lower case, or nil when it is not exactly `host[:port]` for the host that nginx routes by: an
-- absolute-form target may name another.
function _M.authority(http_host, host)
    local n = host and #host or 0
    if not http_host or n == 0 or n > LONGEST_HOST then
        return nil
    end
    if sub(http_host, 1, n) ~= host then
        http_host = lower(http_host)
        if sub(http_host, 1, n) ~= host then
            return nil
        end
    end
    return (#http_host == n or is_port(sub(http_host, n + 1))) and http_host or nil
end

return _M
