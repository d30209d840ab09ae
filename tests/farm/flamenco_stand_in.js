// As much of Flamenco's job compiler as our job type meets: what its Manager checks before and
// while it compiles a job. Prints the job type's settings and the tasks as JSON.
//
//     node flamenco_stand_in.js JOB_TYPE.js '{"setting": value}'
const fs = require("fs");
const vm = require("vm");

const [script, given] = process.argv.slice(2);
const KEYS = new Set(["key", "type", "subtype", "choices", "propargs", "description", "label",
    "default", "eval", "evalInfo", "visible", "required", "editable"]);
const TYPES = new Set(["string", "int32", "float", "bool"]);
const SUBTYPES = new Set(["file_path", "dir_path", "file_name", "hashed_file_path"]);
const VISIBLE = new Set(["visible", "hidden", "submission", "web"]);

function check(condition, message) {
    if (!condition) throw new Error(message);
}

class Task {
    constructor(name, type) {
        check(typeof name === "string" && name.trim(), "author.Task(name, type): name is required");
        check(typeof type === "string" && type.trim(), "author.Task(name, type): type is required");
        Object.assign(this, { name, type, commands: [] });
    }
    addCommand(command) {
        check(command instanceof Command, "addCommand() takes what author.Command() made");
        this.commands.push(command);
    }
}

class Command {
    constructor(name, parameters) {
        check(["exec", "blender-render", "frames-to-video", "move-directory", "sleep", "echo"]
            .includes(name), `no command ${name}`);
        if (name === "exec") {
            check(typeof parameters.exe === "string", "exec needs exe, a string");
            check(parameters.args.every((each) => typeof each === "string"),
                "exec needs args, strings");
        }
        Object.assign(this, { name, parameters });
    }
}

const tasks = [];
const world = {
    author: {
        Task: (name, type) => new Task(name, type),
        Command: (name, parameters) => new Command(name, parameters),
    },
    // shlex without its rarer cases.
    shellSplit: (text) => (text.match(/"[^"]*"|'[^']*'|\S+/g) || [])
        .map((word) => word.replace(/^(["'])(.*)\1$/, "$2")),
    print: () => {},
};
vm.createContext(world);
vm.runInContext(fs.readFileSync(script, "utf8"), world, { filename: script });
const type = vm.runInContext("JOB_TYPE", world);

const settings = {};
for (const setting of type.settings) {
    for (const key of Object.keys(setting)) check(KEYS.has(key), `${setting.key}: unknown ${key}`);
    check(TYPES.has(setting.type), `${setting.key}: unknown type ${setting.type}`);
    check(!setting.subtype || SUBTYPES.has(setting.subtype), `${setting.key}: unknown subtype`);
    check(!setting.visible || VISIBLE.has(setting.visible), `${setting.key}: unknown visibility`);
    if (setting.default !== undefined) settings[setting.key] = setting.default;
}
Object.assign(settings, JSON.parse(given));
for (const setting of type.settings) {
    check(!setting.required || settings[setting.key], `${setting.key} is required`);
}

world.job = { settings, name: "a job", addTask: (task) => {
    check(task instanceof Task, "addTask() takes what author.Task() made");
    tasks.push(task);
} };
vm.runInContext("compileJob(job)", world);
process.stdout.write(JSON.stringify({ label: type.label, settings: type.settings, tasks }));
