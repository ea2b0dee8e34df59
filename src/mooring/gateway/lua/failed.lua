-- Answers when nginx could not get an answer from a backend.
local answers = require("answers")
local request = require("request")

local _M = {}

function _M.answer(listener)
    return answers.failed(ngx.status, request.identify(listener))
end

return _M
