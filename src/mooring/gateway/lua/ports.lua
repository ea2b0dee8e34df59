-- Where a port of a workspace listens, asked of the server and kept for a second: the address is given only while the
-- listener belongs to the workspace's own processes.
local cjson = require("cjson.safe")
local lru = require("resty.lrucache")
local settings = require("settings")

local _M = {}

local KEPT_S = 1
local known = lru.new(1024)

local function credential()
    local file = io.open(settings.gateway_token)
    local token = file and file:read("*l")
    if file then
        file:close()
    end
    return token or ""
end

local function ask(path)
    local socket = ngx.socket.tcp()
    socket:settimeouts(1000, 1000, 2000)
    if not socket:connect(settings.api_socket) then
        return nil
    end
    local request = "GET " .. path .. " HTTP/1.1\r\nHost: " .. settings.console .. "\r\nAuthorization: Bearer "
    socket:send(request .. credential() .. "\r\nAccept: application/json\r\nConnection: close\r\n\r\n")
    local head = socket:receiveuntil("\r\n\r\n")() or ""
    local length = string.match(string.lower(head), "\r\ncontent%-length:%s*(%d+)")
    local body = length and socket:receive(tonumber(length))
    socket:close()
    return string.match(head, "^HTTP/1%.1 200 ") and cjson.decode(body or "") or nil
end

-- Host (an IP address, of version 6 in brackets) and port of the workspace's listener; nil when it has none there.
function _M.lookup(workspace, port)
    local key = workspace .. " " .. (port or "")
    local found = known:get(key)
    if found == nil then
        local answer = port and ask("/api/v1/gateway/listeners/" .. workspace .. "/" .. port)
        found = answer and answer.address or false
        known:set(key, found, KEPT_S)
    end
    if not found then
        return nil
    end
    local host, number = string.match(found, "^(.+):(%d+)$")
    return host, tonumber(number)
end

return _M
