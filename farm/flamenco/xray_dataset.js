// SPDX-License-Identifier: GPL-3.0-or-later
//
// Flamenco job type: an X-Ray dataset, a task for each shard. See farm/README.md.

const JOB_TYPE = {
    label: "X-Ray Dataset",
    description: "Capture many objects as layered images, for machine learning",
    settings: [
        { key: "source", type: "string", subtype: "file_path", required: true,
          description: "Folder of mesh files, or manifest (.csv, .jsonl), on shared storage" },
        { key: "out", type: "string", subtype: "dir_path", required: true,
          description: "Folder of the dataset on shared storage" },
        { key: "shards", type: "int32", default: 8, propargs: { min: 1, max: 10000 }, visible: "submission",
          description: "Number of tasks that the objects are shared out to" },
        { key: "jobs", type: "int32", default: 1, propargs: { min: 1, max: 1024 }, visible: "submission",
          description: "Blender processes at once on one worker" },
        { key: "views", type: "int32", default: 4, propargs: { min: 1, max: 10000 },
          description: "Number of camera views an object" },
        { key: "layers", type: "int32", default: 16, propargs: { min: 1, max: 256 },
          description: "Surfaces kept along each ray, nearest first" },
        { key: "size", type: "int32", default: 256, propargs: { min: 8, max: 8192 },
          description: "Width and height of the X-Ray in pixels" },
        { key: "seed", type: "int32", default: 0, propargs: { min: 0, max: 2147483647 },
          description: "Seed of cameras, lights and rendering" },
        { key: "image", type: "string", default: "cycles",
          choices: ["cycles", "eevee", "workbench", "cast", "none"],
          description: "What makes the reference images" },
        { key: "options", type: "string", default: "", visible: "submission",
          description: "Further options of `python -m farm`, such as --samples=64 --tar" },
    ],
};

// From the root, of a drive or a share too, at a URL, or from one of Flamenco's variables. Workers
// start in any folder, and the Manager does not know in which one a job was submitted.
function checkAbsolute(name, path) {
    if (path && (path.startsWith("//") || !/^([\\/{]|[A-Za-z]:[\\/]|\w+:\/\/)/.test(path))) {
        throw new Error(`${name} is the relative path ${path}. Give it from the root.`);
    }
}

function compileJob(job) {
    const settings = job.settings;
    const further = shellSplit(settings.options || "");
    checkAbsolute("source", settings.source);
    checkAbsolute("out", settings.out);
    for (const name of ["--poses", "--hdri", "--staging"]) {
        const at = further.findIndex((each) => each === name || each.startsWith(`${name}=`));
        if (at >= 0) {
            checkAbsolute(name, further[at] === name ? further[at + 1] : further[at].slice(name.length + 1));
        }
    }
    for (let i = 1; i <= settings.shards; i++) {
        const task = author.Task(`shard-${i}-of-${settings.shards}`, "blender");
        // The farm rather than Blender alone: what crashes Blender costs that object, not the shard.
        task.addCommand(author.Command("exec", {
            exe: "{xray_python}",
            args: [
                "-m", "farm", settings.source, settings.out,
                `--shard=${i}/${settings.shards}`,
                "--blender={blender}",
                `--jobs=${settings.jobs}`,
                `--views=${settings.views}`,
                `--layers=${settings.layers}`,
                `--size=${settings.size}`,
                `--seed=${settings.seed}`,
                `--image=${settings.image}`,
            ].concat(further),
        }));
        job.addTask(task);
    }
}
